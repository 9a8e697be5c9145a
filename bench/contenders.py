"""What people write without capmarshal: both halves of each, on a socket pair, as the documentation would have it.

The client's half returns after the answer; the server's runs until the client closes its end.
"""

import io
import multiprocessing
import operator
import os
import socket
import struct
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import msgspec

# include/net/scm.h: SCM_MAX_FD
DESCRIPTORS_MAX = 253
# What comes back for a file: as long as a digest of 256 bits.
TEXT = "0123456789abcdef" * 4
# More than any record has, but those of Stream; and what one receiving call of that asks for.
_ROOM, _CHUNK = 4096, 256 * 1024
# Of a Stream: how many bytes, how many descriptors.  And what every answer to handing over is: see Seen.
_HEAD = _SEEN = struct.Struct("=QQ")


class Seen(NamedTuple):
    """What arrived, as the server saw it.

    Attributes:
        amount: of bytes or descriptors.
        mark: the last byte, or the inode of the last descriptor; 0 if there is none.
    """

    amount: int
    mark: int


def look_at_bytes(data: bytes | memoryview) -> Seen:
    """What these bytes are."""
    return Seen(len(data), data[-1] if data else 0)


def look_at_descriptors(numbers: Sequence[int]) -> Seen:
    """What these descriptors are; borrowed."""
    return Seen(len(numbers), os.fstat(numbers[-1]).st_ino if numbers else 0)


def close_all(numbers: Sequence[int]) -> None:
    """Closes them."""
    for number in numbers:
        os.close(number)


def share_password(password: bytes) -> None:
    """What a child of :class:`multiprocessing.Process` gets by itself, and :class:`DupFds` needs."""
    multiprocessing.current_process().authkey = password


class ByHand:
    """The client's half; closing it ends the server's."""

    KIND = socket.SOCK_SEQPACKET

    def __init__(self, near: socket.socket) -> None:
        self._near = near

    def close(self) -> None:
        """Ends it."""
        self._near.close()

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        raise NotImplementedError


class Add(ByHand):
    """The least that adds: no method but one, nothing checked but the types."""

    def __init__(self, near: socket.socket) -> None:
        super().__init__(near)
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


class Rpc(ByHand):
    """A typed call as a program has it that has several: by name, answered by number, errors told."""

    def __init__(self, near: socket.socket) -> None:
        super().__init__(near)
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


class Describe(ByHand):
    """An open file there, characters back: ``socket.send_fds`` and msgspec; the server makes a file object of it."""

    def __init__(self, near: socket.socket) -> None:
        super().__init__(near)
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


class Swap(ByHand):
    """Descriptors there and back: ``socket.send_fds`` and ``socket.recv_fds``."""

    def swap(self, numbers: Sequence[int]) -> list[int]:
        """Hands descriptors over, borrowed; what comes back is the caller's."""
        socket.send_fds(self._near, [b"\0"], numbers)
        return socket.recv_fds(self._near, _ROOM, DESCRIPTORS_MAX)[1]

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half: closes what it received once it has answered."""
        while True:
            data, numbers, _, _ = socket.recv_fds(far, _ROOM, DESCRIPTORS_MAX)
            if not data:
                return
            socket.send_fds(far, [b"\0"], numbers)
            close_all(numbers)


class Stream(ByHand):
    """``socket.send_fds`` and ``socket.recv_fds`` on a stream: sent and received until all is through."""

    KIND = socket.SOCK_STREAM

    def hand_bytes(self, data: memoryview) -> Seen:
        """Hands bytes over."""
        return self._hand(data, [])

    def hand_descriptors(self, numbers: list[int]) -> Seen:
        """Hands descriptors over; borrowed."""
        return self._hand(memoryview(b""), numbers)

    def _hand(self, data: memoryview, numbers: list[int]) -> Seen:
        head = _HEAD.pack(len(data), len(numbers))
        at = socket.send_fds(self._near, [head, data], numbers[:DESCRIPTORS_MAX]) - len(head)
        while at < len(data):
            at += socket.send_fds(self._near, [data[at:]], [])
        for start in range(DESCRIPTORS_MAX, len(numbers), DESCRIPTORS_MAX):
            # Descriptors need a byte to travel with.
            socket.send_fds(self._near, [b"\0"], numbers[start : start + DESCRIPTORS_MAX])
        return Seen(*_SEEN.unpack(self._near.recv(_SEEN.size)))

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        while True:
            chunk, numbers, _, _ = socket.recv_fds(far, _CHUNK, DESCRIPTORS_MAX)
            if not chunk:
                return
            size, count = _HEAD.unpack_from(chunk)
            chunks = [chunk[_HEAD.size :]]
            left = size - len(chunks[0])
            while left > 0 or len(numbers) < count:
                chunk, more, _, _ = socket.recv_fds(far, max(min(left, _CHUNK), 1), DESCRIPTORS_MAX)
                chunks.append(chunk)
                left -= len(chunk)
                numbers += more
            seen = look_at_descriptors(numbers) if numbers else look_at_bytes(b"".join(chunks))
            close_all(numbers)
            far.sendall(_SEEN.pack(*seen))


class ConnectionBytes(ByHand):
    """``multiprocessing.Connection``: bytes only."""

    KIND = socket.SOCK_STREAM

    def __init__(self, near: socket.socket) -> None:
        super().__init__(near)
        self._connection: Connection[Any, Any] = Connection(near.detach())

    def hand_bytes(self, data: memoryview) -> Seen:
        """Hands bytes over."""
        self._connection.send_bytes(data)
        return Seen(*_SEEN.unpack(self._connection.recv_bytes()))

    def close(self) -> None:
        """Ends it."""
        self._connection.close()

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        connection: Connection[Any, Any]
        with Connection(far.detach()) as connection:
            while True:
                connection.send_bytes(_SEEN.pack(*look_at_bytes(connection.recv_bytes())))


class DupFds(ConnectionBytes):
    """``multiprocessing.reduction.DupFd`` of each descriptor, all of them in one message of a Connection.

    The receiver fetches each from a server thread of the sender, which asks for a password: both processes need to
    have the same ``multiprocessing.current_process().authkey``.
    """

    def hand_descriptors(self, numbers: list[int]) -> Seen:
        """Hands descriptors over; borrowed."""
        self._connection.send([reduction.DupFd(number) for number in numbers])
        return Seen(*_SEEN.unpack(self._connection.recv_bytes()))

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        connection: Connection[Any, Any]
        with Connection(far.detach()) as connection:
            while True:
                numbers = [duplicate.detach() for duplicate in connection.recv()]
                seen = look_at_descriptors(numbers)
                close_all(numbers)
                connection.send_bytes(_SEEN.pack(*seen))


# By the name that a server is told.
BY_NAME = {each.__name__: each for each in (Add, Rpc, Describe, Swap, Stream, ConnectionBytes, DupFds)}
