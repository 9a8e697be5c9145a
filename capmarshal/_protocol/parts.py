"""Records too long for the kernel: cut into parts by the sender, put together by the receiver.

Both ends see only whole records: all of one arrives, or what came is closed and the call answered with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._kernel.native import DESCRIPTORS_MAX, NOW, ffi, lib
from capmarshal._protocol import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# Bytes of a part: with its head it fits into the default send buffer of 212,992.
PART_BYTES = 128 * 1024

# What a client accepts as a result; a server has maxima of its own.
RESULT_BYTES_MAX = 1 << 30
RESULT_DESCRIPTORS_MAX = (1 << 16) - 1


class Piece(NamedTuple):
    """One record of a long one.

    Attributes:
        head: its own bytes.
        start: of the bytes of the long record that it carries,
        stop: and their end.
        numbers: the descriptors that it carries.
        waits: the next piece must not be sent before a GO.
    """

    head: bytes
    start: int
    stop: int
    numbers: Sequence[int]
    waits: bool


def cut(call_id: int, size: int, numbers: Sequence[int], part_bytes: int = PART_BYTES) -> Iterator[Piece]:
    """The pieces of a record of ``size`` bytes with the descriptors ``numbers``, borrowed."""
    yield Piece(wire.pack_begin(call_id, size, len(numbers)), 0, 0, [], waits=False)
    at = taken = 0
    while at < size or taken < len(numbers):
        some = numbers[taken : taken + DESCRIPTORS_MAX]
        stop = min(at + part_bytes, size)
        taken += len(some)
        last = stop == size and taken == len(numbers)
        yield Piece(wire.pack_part_head(call_id, len(some)), at, stop, some, waits=bool(some) and not last)
        at = stop


def send_piece(number: int, piece: Piece, memory: object) -> int:
    """Sends one piece of the bytes in ``memory``, without waiting; 0 or -errno."""
    head = ffi.from_buffer(piece.head)
    parts = ffi.new("struct iovec[2]")
    parts[0].iov_base, parts[0].iov_len = head, len(piece.head)
    parts[1].iov_base, parts[1].iov_len = memory + piece.start, piece.stop - piece.start  # type: ignore[operator]  # a C pointer
    return lib.cm_send(number, parts, 2, piece.numbers, len(piece.numbers), NOW)


class Assembly:
    """A long record on its way in.  Owns the descriptors that have come.

    Args:
        begin: what is to come.
    """

    __slots__ = ("_announced", "_size", "data", "descriptors", "id", "lost", "total")

    def __init__(self, begin: wire.Begin) -> None:
        self.id = begin.id
        self.total = begin.descriptors
        self._size = begin.size
        self._announced = 0
        self.data = bytearray()
        self.descriptors = DescriptorList()
        # Why descriptors are missing; empty if none are.
        self.lost = ""

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return self._size

    @property
    def complete(self) -> bool:
        """Whether all parts have come."""
        return len(self.data) == self._size and self._announced == self.total

    def add(self, part: wire.Part, descriptors: DescriptorList, lost: str) -> bool:
        """Adds a part; whether its sender waits for a GO.

        Args:
            part: the record.
            descriptors: that came with it; taken, also on failure.
            lost: why some did not come.

        Raises:
            Malformed: it is not the next part, or more than was announced.
        """
        count = len(descriptors)
        self.descriptors.take(descriptors)
        self._announced += part.descriptors
        if part.id != self.id or len(self.data) + len(part.payload) > self._size or self._announced > self.total:
            raise wire.Malformed("a part that was not announced", self.id)
        if lost:
            self.lost = lost
        elif count != part.descriptors:
            raise wire.Malformed(f"{part.descriptors} descriptors were announced, {count} came", self.id)
        self.data += part.payload
        return part.descriptors > 0 and not self.complete

    def steal(self) -> DescriptorList:
        """Moves the descriptors out: the caller owns them."""
        stolen = DescriptorList()
        stolen.take(self.descriptors)
        return stolen
