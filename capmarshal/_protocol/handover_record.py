"""The record in which a capability waits to be taken: bytes in, badge out.  No socket, no descriptor.

It travels on a socket that may carry anything else, so it says what it is, and how long; and it begins alike whatever
its version, so that one of another version is taken whole, and what is wrong can be told::

    0      magic        8 bytes
    8      version      4 bytes     of the protocol that the door's server speaks
    12     size         4 bytes     of the whole record
    16     badge        16 bytes

With its first byte travels the client end of the door, and no other descriptor.  Integers have the machine's byte
order.

Where a listening server hands nothing over, a record of the same beginning says so.  Its badge is that of no object, no
descriptor travels with it, and it goes on with::

    32     busy         4 bytes     1: another time it may be handed over; 0: it is refused; 2: what the server would
                                   hand over is gone, or can't be reached
    36     why          in words, UTF-8, up to the end
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from capmarshal._protocol import wire

# Its first byte is in no UTF-8: what begins so is no text.
_MAGIC = b"\xfecapmshl"
_HEAD = struct.Struct("=8sII")
_RECORD = struct.Struct(f"=8sII{wire.BADGE_SIZE}s")

_REFUSAL = struct.Struct(f"=8sII{wire.BADGE_SIZE}sI")

HEAD_SIZE = _HEAD.size
# Of any version: whoever says more has not written a handover.
SIZE_MAX = 4096


class Because(IntEnum):
    """Why nothing is handed over; where it is another number, it is refused."""

    REFUSED = 0
    BUSY = 1
    GONE = 2


class Refusal(NamedTuple):
    """Why a server hands nothing over.

    Attributes:
        why: in its words.
        because: in one.
    """

    why: str
    because: Because


def pack(badge: bytes) -> bytes:
    """The record for an object's badge."""
    return _RECORD.pack(_MAGIC, wire.VERSION, _RECORD.size, badge)


def pack_refusal(why: str, because: Because) -> bytes:
    """The record that says why nothing is handed over, in a few words, and in one."""
    words = why.encode()[: SIZE_MAX - _REFUSAL.size]
    return _REFUSAL.pack(_MAGIC, wire.VERSION, _REFUSAL.size + len(words), wire.NO_BADGE, because) + words


def may_begin(data: bytes) -> bool:
    """Whether a record may begin with these bytes, of which there may be few."""
    if not data or not _MAGIC.startswith(data[: len(_MAGIC)]):
        return False
    return len(data) < HEAD_SIZE or HEAD_SIZE <= size_of(data) <= SIZE_MAX


def is_told(data: bytes) -> bool:
    """Whether there are enough bytes to tell a record from anything else."""
    return len(data) >= len(_MAGIC)


def size_of(head: bytes) -> int:
    """The size of the whole record, as its head says."""
    size: int = _HEAD.unpack_from(head)[2]
    return size


def read(record: bytes) -> bytes | Refusal:
    """The badge that a record brings, or what it says instead.

    Raises:
        ValueError: why it can't be used, in words.
    """
    if not may_begin(record):
        raise ValueError("it is something else")
    if len(record) < HEAD_SIZE:
        raise ValueError("it is too short")
    _, version, size = _HEAD.unpack_from(record)
    if version != wire.VERSION:
        raise ValueError(f"its server speaks version {version} of the protocol, and this process {wire.VERSION}")
    if len(record) == size >= _REFUSAL.size and _REFUSAL.unpack_from(record)[3] == wire.NO_BADGE:
        why = record[_REFUSAL.size :].decode("utf-8", "backslashreplace")
        because = _REFUSAL.unpack_from(record)[4]
        return Refusal(why, Because(because) if because in Because.__members__.values() else Because.REFUSED)
    if size != _RECORD.size or len(record) != size:
        raise ValueError(f"it has {len(record)} bytes, and says {size}, where it should be {_RECORD.size}")
    badge: bytes = _RECORD.unpack(record)[3]
    if badge == wire.NO_BADGE:
        raise ValueError("its badge is that of no object")
    return badge
