"""What people write without capmarshal, on a SEQPACKET socket: ``sendmsg``, ``recvmsg``, and msgspec for the bytes.

The client's halves return after the answer; the server's run until the client closes its end.
"""

from __future__ import annotations

import operator
import os
import socket
from typing import TYPE_CHECKING

import msgspec

from bench import handover

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Sequence

# More than any record here has.
_ROOM = 4096


class Add:
    """The least that adds: no method but one, nothing checked but the types."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(int).decode

    def add(self, a: int, b: int) -> int:
        """The sum."""
        self._near.sendmsg([self._encode((a, b))])
        return self._decode(self._near.recvmsg(_ROOM)[0])

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        encode = msgspec.msgpack.Encoder().encode
        decode = msgspec.msgpack.Decoder(tuple[int, int]).decode
        while data := far.recvmsg(_ROOM)[0]:
            a, b = decode(data)
            far.sendmsg([encode(a + b)])


class _Request(msgspec.Struct, array_like=True):
    id: int
    method: str
    arguments: msgspec.Raw


class _Answer(msgspec.Struct, array_like=True):
    id: int
    result: msgspec.Raw
    error: str = ""


class Rpc:
    """A typed call as a program has it that has several: by name, answered by number, errors told."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near
        self._id = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Answer).decode
        self._decode_sum = msgspec.msgpack.Decoder(int).decode

    def add(self, a: int, b: int) -> int:
        """The sum."""
        return self._decode_sum(self._call("add", (a, b)))

    def _call(self, method: str, arguments: tuple[object, ...]) -> msgspec.Raw:
        self._id += 1
        self._near.sendmsg([self._encode(_Request(self._id, method, msgspec.Raw(self._encode(arguments))))])
        data, _, flags, _ = self._near.recvmsg(_ROOM)
        if not data or flags & socket.MSG_TRUNC:
            raise ConnectionError("the server ended, or answered too much")
        answer = self._decode(data)
        if answer.error or answer.id != self._id:
            raise RuntimeError(answer.error or "an answer to another call came")
        return answer.result

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        encode = msgspec.msgpack.Encoder().encode
        decode = msgspec.msgpack.Decoder(_Request).decode
        methods = {"add": (operator.add, msgspec.msgpack.Decoder(tuple[int, int]).decode)}
        while True:
            data, _, flags, _ = far.recvmsg(_ROOM)
            if not data or flags & socket.MSG_TRUNC:
                return
            request = decode(data)
            try:
                method, arguments = methods[request.method]
                answer = _Answer(request.id, msgspec.Raw(encode(method(*arguments(request.arguments)))))
            except (LookupError, msgspec.MsgspecError) as error:
                answer = _Answer(request.id, msgspec.Raw(encode(None)), str(error))
            far.sendmsg([encode(answer)])


class Swap:
    """Descriptors there and back: ``socket.send_fds`` and ``socket.recv_fds``."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near

    def swap(self, numbers: Sequence[int]) -> list[int]:
        """Hands descriptors over, borrowed; what comes back is the caller's."""
        socket.send_fds(self._near, [b"\0"], numbers)
        return socket.recv_fds(self._near, _ROOM, handover.DESCRIPTORS_MAX)[1]

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half: closes what it received once it has answered."""
        while True:
            data, numbers, _, _ = socket.recv_fds(far, _ROOM, handover.DESCRIPTORS_MAX)
            if not data:
                return
            socket.send_fds(far, [b"\0"], numbers)
            for number in numbers:
                os.close(number)


# What comes back for a file: as long as a digest of 256 bits.
TEXT = "0123456789abcdef" * 4


class Describe:
    """An open file there, characters back: ``socket.send_fds`` and msgspec; the server makes a file object of it."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(str).decode

    def describe(self, file: io.BufferedReader) -> str:
        """64 characters, whatever the file."""
        socket.send_fds(self._near, [self._encode("describe")], [file.fileno()])
        return self._decode(self._near.recv(_ROOM))

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        encode = msgspec.msgpack.Encoder().encode
        decode = msgspec.msgpack.Decoder(str).decode
        while True:
            data, numbers, _, _ = socket.recv_fds(far, _ROOM, 1)
            if not data:
                return
            decode(data)
            with os.fdopen(numbers[0], "rb"):
                answer = TEXT
            far.send(encode(answer))


_OWN: dict[str, Callable[[socket.socket], None]] = {
    "add": Add.serve,
    "rpc": Rpc.serve,
    "swap": Swap.serve,
    "describe": Describe.serve,
}
SERVERS = _OWN | {name: peer.serve for name, peer in handover.PEERS.items()}
# The peers of handing over speak over streams.
KINDS = {name: socket.SOCK_SEQPACKET if name in _OWN else socket.SOCK_STREAM for name in SERVERS}
