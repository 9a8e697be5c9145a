"""A client's side of the protocol by hand, so that the neighbour can say what no honest client says."""

import array
import contextlib
import os
import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

_KNOCK, _CALL, _BEGIN = 1, 2, 5
_HEAD = struct.Struct("=BBHHHQ")
_CALL_HEAD = struct.Struct("=BBHHHQQQH16s")
_BEGIN_RECORD = struct.Struct("=BBHHHQQI")
_NO_LIMIT = (1 << 64) - 1
# What capmarshal.spawn() hands down: magic, version, number of the door's client end, badge.
_HANDOVER, _HANDOVER_NAME = struct.Struct("=16sBi16s"), "/memfd:capmarshal-parent (deleted)"


class _Handed(NamedTuple):
    """What spawn() hands down, as far as it is of use here."""

    version: int
    door: int
    badge: bytes


def _handed_down() -> _Handed | None:
    """What this process was given, unless capmarshal was imported before and has taken it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are what is wanted
        with contextlib.suppress(OSError):
            if str(Path("/proc/self/fd", name).readlink()) == _HANDOVER_NAME:
                return _Handed(*_HANDOVER.unpack(os.pread(int(name), _HANDOVER.size, 0))[1:])
    return None


_HANDED = _handed_down()
# That of the capmarshal which is measured: several are, in one run.  Outside of a neighbour none is needed.
_VERSION = _HANDED.version if _HANDED is not None else 0

KNOCK = _HEAD.pack(_VERSION, _KNOCK, 0, 1, 0, 0)
BEGIN = _BEGIN_RECORD.pack(_VERSION, _BEGIN, 0, 0, 0, 1, 16 << 20, 0)
# Each in another way.
MALFORMED = [
    b"\xff" * 5,
    _HEAD.pack(9, _CALL, 0, 0, 0, 1),
    _HEAD.pack(_VERSION, 200, 0, 0, 0, 2),
    _CALL_HEAD.pack(_VERSION, _CALL, 7, 0, 0, 4, _NO_LIMIT, 0, 3, bytes(16)) + b"add",
    _CALL_HEAD.pack(_VERSION, _CALL, 0, 0, 0, 5, _NO_LIMIT, 0, 999, bytes(16)) + b"add",
]


def send(sock: socket.socket, record: bytes, numbers: Sequence[int] = ()) -> None:
    """Sends a record with descriptors; waits for room, for a second at most."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
    try:
        sock.sendmsg([record], control, socket.MSG_DONTWAIT)
    except BlockingIOError:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        poll.poll(1000)
        with contextlib.suppress(BlockingIOError):
            sock.sendmsg([record], control, socket.MSG_DONTWAIT)


class Door:
    """The door that this process was given, and the object behind it."""

    def __init__(self, number: int, badge: bytes) -> None:
        self.end = socket.socket(fileno=number)
        self._badge = badge

    @classmethod
    def inherited(cls) -> Self:
        """A copy of the one that spawn() gave; before capmarshal is imported, which takes that."""
        if _HANDED is not None:
            return cls(os.dup(_HANDED.door), _HANDED.badge)
        raise SystemExit("spawn() hands doors over in another way than this benchmark knows")

    def knock(self) -> socket.socket:
        """A new channel's near end."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            send(self.end, KNOCK, [far.fileno()])
        near.setblocking(False)
        return near

    def call(self, method: bytes, payload: bytes, count: int = 0) -> bytes:
        """A CALL record with a table of so many descriptors."""
        head = _CALL_HEAD.pack(_VERSION, _CALL, count, count, 0, 1, _NO_LIMIT, 0, len(method), self._badge)
        return head + method + b"".join(struct.pack("=H16x", slot) for slot in range(count)) + payload
