"""What people write without capmarshal: both halves of each, on a socket pair, as the documentation would have it.

The client's half returns after the answer; the server's runs until the client closes its end.
"""

import contextlib
import io
import multiprocessing
import operator
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import msgspec

# include/net/scm.h: SCM_MAX_FD
DESCRIPTORS_MAX = 253
# What comes back for a file: as long as a digest of 256 bits.
TEXT = "0123456789abcdef" * 4
# More than any record has, but those of Stream; and what one receiving call of that asks for.
_ROOM, _CHUNK = 4096, 256 * 1024
# For one descriptor.
_CONTROL = socket.CMSG_SPACE(array("i", [0]).itemsize)
# Of a Stream: how many bytes, how many descriptors.
_HEAD = struct.Struct("=QQ")

encode = msgspec.msgpack.Encoder().encode
decode_int, _decode_str = msgspec.msgpack.Decoder(int).decode, msgspec.msgpack.Decoder(str).decode
# The two arguments of add(), and what every answer to handing over is.
decode_pair = msgspec.msgpack.Decoder(tuple[int, int]).decode


def pattern(size: int) -> bytes:
    """So many bytes; their period is no power of two: the last byte of each size, and of each chunk, is another one."""
    period = bytes(range(251))
    return (period * (size // len(period) + 1))[:size]


def look_at_bytes(data: bytes | memoryview) -> tuple[int, int]:
    """What arrived, as the server saw it: how many bytes, and the last one; 0 if there is none."""
    return len(data), data[-1] if data else 0


def look_at_descriptors(numbers: Sequence[int]) -> tuple[int, int]:
    """What arrived: how many descriptors, borrowed, and the inode of the last one; 0 if there is none."""
    return len(numbers), os.fstat(numbers[-1]).st_ino if numbers else 0


def close_all(numbers: Sequence[int]) -> None:
    for number in numbers:
        os.close(number)


class ByHand:
    """The client's half; the server's is :meth:`serve`, which ends when this one is closed."""

    KIND = socket.SOCK_SEQPACKET

    def __init__(self, near: socket.socket) -> None:
        self._near = near

    def close(self) -> None:
        self._near.close()

    @staticmethod
    def serve(far: socket.socket) -> None:
        raise NotImplementedError


class Add(ByHand):
    """The least that adds: no method but one, nothing checked but the types."""

    def add(self, a: int, b: int) -> int:
        self._near.sendmsg([encode((a, b))])
        return decode_int(self._near.recvmsg(_ROOM)[0])

    @staticmethod
    def serve(far: socket.socket) -> None:
        while data := far.recvmsg(_ROOM)[0]:
            a, b = decode_pair(data)
            far.sendmsg([encode(a + b)])


class Request(msgspec.Struct, array_like=True):
    """Which call it is, of which method."""

    id: int
    method: str
    arguments: msgspec.Raw


class Answer(msgspec.Struct, array_like=True):
    """Of which call; and its result, or what went wrong."""

    id: int
    result: msgspec.Raw
    error: str = ""


decode_request, decode_answer = msgspec.msgpack.Decoder(Request).decode, msgspec.msgpack.Decoder(Answer).decode


class Rpc(ByHand):
    """A typed call as a program has it that has several: by name, answered by number, errors told."""

    _id = 0

    def add(self, a: int, b: int) -> int:
        return decode_int(self._call("add", (a, b)))

    def _call(self, method: str, arguments: tuple[object, ...]) -> msgspec.Raw:
        self._id += 1
        self._near.sendmsg([encode(Request(self._id, method, msgspec.Raw(encode(arguments))))])
        data, _, flags, _ = self._near.recvmsg(_ROOM)
        if not data or flags & socket.MSG_TRUNC:
            raise ConnectionError("the server ended, or answered too much")
        answer = decode_answer(data)
        if answer.error or answer.id != self._id:
            raise RuntimeError(answer.error or "an answer to another call came")
        return answer.result

    @staticmethod
    def serve(far: socket.socket) -> None:
        methods = {"add": (operator.add, decode_pair)}
        while True:
            data, _, flags, _ = far.recvmsg(_ROOM)
            if not data or flags & socket.MSG_TRUNC:
                return
            request = decode_request(data)
            try:
                method, arguments = methods[request.method]
                answer = Answer(request.id, msgspec.Raw(encode(method(*arguments(request.arguments)))))
            except (LookupError, msgspec.MsgspecError) as error:
                answer = Answer(request.id, msgspec.Raw(encode(None)), str(error))
            far.sendmsg([encode(answer)])


class AddRequest(msgspec.Struct, array_like=True, tag=0, gc=False):
    """``add(a, b)``."""

    a: int
    b: int


class InodeRequest(msgspec.Struct, array_like=True, tag=1, gc=False):
    """``inode(file)``; the descriptor travels beside it."""


decode_tagged = msgspec.msgpack.Decoder(AddRequest | InodeRequest).decode


class Tagged(ByHand):
    """A service of two methods, told apart by a tag, with room for a descriptor.

    Laid out as https://jcristharif.com/msgspec/perf-tips.html says: encoders and decoders are kept, structs are arrays,
    types are declared.  No deadline, and no answer to a bad request.
    """

    def add(self, a: int, b: int) -> int:
        self._near.sendmsg([encode(AddRequest(a, b))])
        return decode_int(self._near.recvmsg(_ROOM, _CONTROL, socket.MSG_CMSG_CLOEXEC)[0])

    def inode(self, number: int) -> int:
        rights = socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [number])
        self._near.sendmsg([encode(InodeRequest())], [rights])
        return decode_int(self._near.recvmsg(_ROOM, _CONTROL, socket.MSG_CMSG_CLOEXEC)[0])

    @staticmethod
    def serve(far: socket.socket) -> None:
        while True:
            record, ancillary, _, _ = far.recvmsg(_ROOM, _CONTROL, socket.MSG_CMSG_CLOEXEC)
            if not record:
                return
            match decode_tagged(record):
                case AddRequest(a, b):
                    result = a + b
                case InodeRequest():
                    [(_, _, data)] = ancillary
                    [number] = array("i", data)
                    result = os.fstat(number).st_ino
                    os.close(number)
            far.sendmsg([encode(result)])


class Describe(ByHand):
    """An open file there, characters back: ``socket.send_fds`` and msgspec; the server makes a file object of it."""

    def describe(self, file: io.BufferedReader) -> str:
        socket.send_fds(self._near, [encode("describe")], [file.fileno()])
        return _decode_str(self._near.recv(_ROOM))

    @staticmethod
    def serve(far: socket.socket) -> None:
        while True:
            data, numbers, _, _ = socket.recv_fds(far, _ROOM, 1)
            if not data:
                return
            _decode_str(data)
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
        while True:
            data, numbers, _, _ = socket.recv_fds(far, _ROOM, DESCRIPTORS_MAX)
            if not data:
                return
            socket.send_fds(far, [b"\0"], numbers)
            close_all(numbers)


class Stream(ByHand):
    """``socket.send_fds`` and ``socket.recv_fds`` on a stream: sent and received until all is through."""

    KIND = socket.SOCK_STREAM

    def hand_over(self, data: memoryview | bytes, numbers: Sequence[int] = ()) -> tuple[int, int]:
        """Hands bytes over, or descriptors, borrowed."""
        head = _HEAD.pack(len(data), len(numbers))
        at = socket.send_fds(self._near, [head, data], numbers[:DESCRIPTORS_MAX]) - len(head)
        while at < len(data):
            at += socket.send_fds(self._near, [data[at:]], [])
        for start in range(DESCRIPTORS_MAX, len(numbers), DESCRIPTORS_MAX):
            # Descriptors need a byte to travel with.
            socket.send_fds(self._near, [b"\0"], numbers[start : start + DESCRIPTORS_MAX])
        return decode_pair(self._near.recv(_ROOM))

    @staticmethod
    def serve(far: socket.socket) -> None:
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
            far.sendall(encode(seen))


class ConnectionBytes(ByHand):
    """``multiprocessing.Connection``: bytes only."""

    KIND = socket.SOCK_STREAM

    def __init__(self, near: socket.socket) -> None:
        self._connection: Connection[Any, Any] = Connection(near.detach())

    def close(self) -> None:
        self._connection.close()

    def hand_over(self, data: memoryview) -> tuple[int, int]:
        self._connection.send_bytes(data)
        return decode_pair(self._connection.recv_bytes())

    @staticmethod
    def serve(far: socket.socket) -> None:
        connection: Connection[Any, Any]
        with Connection(far.detach()) as connection:
            while True:
                connection.send_bytes(encode(look_at_bytes(connection.recv_bytes())))


class ConnectionObjects(ConnectionBytes):
    """``multiprocessing.Connection`` with its own pickling: ``send`` and ``recv``.

    One descriptor goes on the same socket by ``multiprocessing.reduction.send_handle``, the cheapest that there is;
    many as ``DupFd`` each, all of them in one message.  The receiver fetches each of those from a server thread of the
    sender, which asks for a password.
    """

    def __init__(self, near: socket.socket) -> None:
        super().__init__(near)
        know_password()

    def add(self, a: int, b: int) -> Any:
        self._connection.send(("add", a, b))
        return self._connection.recv()

    def inode(self, number: int) -> Any:
        self._connection.send(("inode",))
        reduction.send_handle(self._connection, number, 0)  # the process is asked for on Windows alone
        return self._connection.recv()

    def hand_descriptors(self, numbers: Sequence[int]) -> Any:
        self._connection.send([reduction.DupFd(number) for number in numbers])
        return self._connection.recv()

    @staticmethod
    def serve(far: socket.socket) -> None:
        know_password()
        connection: Connection[Any, Any]
        with Connection(far.detach()) as connection:
            while True:
                match connection.recv():
                    case ("add", a, b):
                        connection.send(a + b)
                    case ("inode",):
                        number = reduction.recv_handle(connection)
                        connection.send(os.fstat(number).st_ino)
                        os.close(number)
                    case duplicates:
                        numbers = [duplicate.detach() for duplicate in duplicates]
                        seen = look_at_descriptors(numbers)
                        close_all(numbers)
                        connection.send(seen)


def know_password() -> bytes:
    """What a child of :class:`multiprocessing.Process` gets by itself; here nothing is kept secret."""
    multiprocessing.current_process().authkey = b"bench"
    return b"bench"


def serve(name: str, far: socket.socket) -> None:
    """The server's half of the class of this name."""
    contender: type[ByHand] = globals()[name]
    with far, contextlib.suppress(EOFError):
        contender.serve(far)
