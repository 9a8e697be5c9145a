"""The record in which a capability waits to be taken: bytes in, badge out.  No socket, no descriptor.

It travels on a socket that may carry anything else, so it says what it is, and how long; and it begins alike whatever
its version, so that one of another version is taken whole, and what is wrong can be told::

    0      magic        8 bytes
    8      version      4 bytes     of the protocol that the door's server speaks
    12     size         4 bytes     of the whole record
    16     badge        16 bytes

With its first byte travels the client end of the door, and no other descriptor.  Integers have the machine's byte
order.
"""

from __future__ import annotations

import struct

from capmarshal._protocol import wire

# Its first byte is in no UTF-8: what begins so is no text.
_MAGIC = b"\xfecapmshl"
_HEAD = struct.Struct("=8sII")
_RECORD = struct.Struct(f"=8sII{wire.BADGE_SIZE}s")

HEAD_SIZE = _HEAD.size
# Of any version: whoever says more has not written a handover.
SIZE_MAX = 4096


def pack(badge: bytes) -> bytes:
    """The record for an object's badge."""
    return _RECORD.pack(_MAGIC, wire.VERSION, _RECORD.size, badge)


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


def read(record: bytes) -> bytes:
    """The badge that a record brings.

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
    if size != _RECORD.size or len(record) != size:
        raise ValueError(f"it has {len(record)} bytes, and says {size}, where it should be {_RECORD.size}")
    badge: bytes = _RECORD.unpack(record)[3]
    if badge == wire.NO_BADGE:
        raise ValueError("its badge is that of no object")
    return badge
