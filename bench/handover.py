"""What the benchmark `transfer` compares with: how Python's own modules hand bytes and descriptors to another process.

Both halves of each, as its documentation would have it: the client hands over, the server says what arrived.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

# include/net/scm.h: SCM_MAX_FD
DESCRIPTORS_MAX = 253
# What one recv_fds() of the peer asks for.
_CHUNK = 256 * 1024

# How many bytes, how many descriptors.
_HEAD = struct.Struct("=QQ")
_SEEN = struct.Struct("=QQ")


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


class Peer(Protocol):
    """The client's half; it ends the server's half when it is closed."""

    def hand_bytes(self, data: memoryview) -> Seen:
        """Hands bytes over."""
        ...

    def hand_descriptors(self, numbers: list[int]) -> Seen:
        """Hands descriptors over; borrowed."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class SendFds:
    """``socket.send_fds`` and ``socket.recv_fds`` on a stream: sent and received until all is through."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near

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

    def close(self) -> None:
        """Ends it."""
        self._near.close()

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


class ConnectionBytes:
    """``multiprocessing.Connection``: bytes only."""

    def __init__(self, near: socket.socket) -> None:
        self._near: Connection[Any, Any] = Connection(near.detach())

    def hand_bytes(self, data: memoryview) -> Seen:
        """Hands bytes over."""
        self._near.send_bytes(data)
        return Seen(*_SEEN.unpack(self._near.recv_bytes()))

    def hand_descriptors(self, numbers: list[int]) -> Seen:
        """It cannot: that is :class:`DupFds`."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends it."""
        self._near.close()

    @staticmethod
    def serve(far: socket.socket) -> None:
        """The server's half."""
        connection: Connection[Any, Any]
        with Connection(far.detach()) as connection:
            while True:
                connection.send_bytes(_SEEN.pack(*look_at_bytes(connection.recv_bytes())))


class DupFds:
    """``multiprocessing.reduction.DupFd`` of each descriptor, all of them in one message of a Connection.

    The receiver fetches each from a server thread of the sender, which asks for a password: both processes need to
    have the same ``multiprocessing.current_process().authkey``.
    """

    def __init__(self, near: socket.socket) -> None:
        self._near: Connection[Any, Any] = Connection(near.detach())

    def hand_bytes(self, data: memoryview) -> Seen:
        """It cannot: that is :class:`ConnectionBytes`."""
        raise NotImplementedError

    def hand_descriptors(self, numbers: list[int]) -> Seen:
        """Hands descriptors over; borrowed."""
        self._near.send([reduction.DupFd(number) for number in numbers])
        return Seen(*_SEEN.unpack(self._near.recv_bytes()))

    def close(self) -> None:
        """Ends it."""
        self._near.close()

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


PEERS: dict[str, type[SendFds | ConnectionBytes | DupFds]] = {
    "socket.send_fds": SendFds,
    "multiprocessing.Connection": ConnectionBytes,
    "multiprocessing.reduction.DupFd": DupFds,
}


def share_password(password: bytes) -> None:
    """What a child of :class:`multiprocessing.Process` gets by itself."""
    multiprocessing.current_process().authkey = password
