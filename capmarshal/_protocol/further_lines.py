"""Lines of a table that say more of a plain descriptor: what array its memory holds, and whose lease goes with it.

They stand right behind its own line, in this order, and begin with the slot that none has, all ones.  The array::

    0      slot         2 bytes     all ones
    2      format       1 byte      of an item, a letter
    3      dimensions   1 byte
    4      zero         6 bytes
    10     shape        8 bytes     how many items along the first dimension; 0 if there is none

with one more line, of all ones and twice 8 bytes, for every two further dimensions (the last may be 0).  The lease::

    0      slot         2 bytes     all ones
    2      zero         2 bytes
    4      lease        2 bytes     which of the record's descriptors: one of its own, and no entry of the table
    6      zero         4 bytes
    10     pool         8 bytes     which lends the memory

So a letter of a format is never zero.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from capmarshal._descriptors.array_layout import DIMENSIONS_MAX, ArrayLayout

_ARRAY = struct.Struct("=HcB6xQ")
_SHAPE = struct.Struct("=HQQ")
_LEASE = struct.Struct("=HHHIQ")
_LINE = _LEASE.size
_MORE: Final = (1 << 16) - 1
_SLOT = struct.Struct("=H")


class Lent(NamedTuple):
    """What goes with memory that is lent: a descriptor, and the number of the pool that lends it."""

    slot: int
    pool: int


def count(array: ArrayLayout | None, lease: Lent | None) -> int:
    """How many lines say so."""
    return (0 if array is None else 1 + len(array.shape) // 2) + (lease is not None)


def pack(array: ArrayLayout | None, lease: Lent | None) -> bytes:
    """The lines that say so."""
    lines: list[bytes] = []
    if array is not None:
        first, *rest = array.shape or (0,)
        lines.append(_ARRAY.pack(_MORE, array.format.encode("latin-1"), len(array.shape), first))
        rest += [0] * (len(rest) % 2)
        lines += [_SHAPE.pack(_MORE, *rest[at : at + 2]) for at in range(0, len(rest), 2)]
    if lease is not None:
        lines.append(_LEASE.pack(_MORE, 0, lease.slot, 0, lease.pool))
    return b"".join(lines)


def read(table: memoryview, at: int) -> tuple[ArrayLayout | None, Lent | None]:
    """What the lines from there on say of the descriptor before them, if they do.

    Raises:
        ValueError: it cannot be read.
    """
    array = lease = None
    if _is_further(table, at) and table[at + 2]:
        array = _read_array(table[at:])
        at += count(array, None) * _LINE
    if _is_further(table, at) and not table[at + 2]:
        _, zero, slot, nothing, pool = _LEASE.unpack_from(table, at)
        if zero or nothing:
            raise ValueError("a table says of a lease what cannot be read")
        lease = Lent(slot, pool)
    return array, lease


def _is_further(table: memoryview, at: int) -> bool:
    return at < len(table) and _SLOT.unpack_from(table, at)[0] == _MORE


def _read_array(lines: memoryview) -> ArrayLayout:
    """What array it is, by the lines that begin with the first that says so."""
    _, letter, dimensions, first = _ARRAY.unpack_from(lines)
    shape = [first]
    for at in range(_LINE, _LINE * (1 + dimensions // 2), _LINE):
        if not _is_further(lines, at):
            break
        shape += _SHAPE.unpack_from(lines, at)[1:]
    array = ArrayLayout(letter.decode("latin-1"), tuple(shape[:dimensions]))
    # Whatever is not said as it would be said here is nothing that anybody has said.
    if dimensions > DIMENSIONS_MAX or len(array.shape) < dimensions or any(shape[dimensions:]) or any(lines[4:10]):
        raise ValueError("a table says of an array what cannot be read")
    return array
