"""Records too long for the kernel: cut into parts by the sender, put together by the receiver.

Both ends see only whole records: all of one arrives, or what came is closed and the call answered with an error.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._kernel.native import DESCRIPTORS_MAX, ffi, lib
from capmarshal._protocol import wire
from capmarshal._protocol.room import room_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capmarshal._kernel.native import CData


# Bytes of a part: with its head it fits into the default send buffer of 212,992, which takes another one after it.  The
# larger the quicker, measured: a MiB takes 158 us in parts of 192 KiB, 168 of 128, 226 of 64.
PART_BYTES = 192 * 1024

# What a client accepts as a result; a server has maxima of its own.
RESULT_BYTES_MAX = 1 << 30
RESULT_DESCRIPTORS_MAX = (1 << 16) - 1


class Piece(NamedTuple):
    """What of a long record is sent before its sender has to wait: one record, or several that are data alone.

    Attributes:
        head: of each.
        stop: up to where the bytes of the long record go, from where the piece before ended.
        numbers: the descriptors that go along.
        waits: the next piece must not be sent before a GO.
    """

    head: bytes
    stop: int
    numbers: Sequence[int]
    waits: bool


def cut(call_id: int, size: int, numbers: Sequence[int], part_bytes: int) -> Iterator[Piece]:
    """The pieces of a record of ``size`` bytes with the descriptors ``numbers``, borrowed."""
    yield Piece(wire.pack_begin(call_id, size, len(numbers)), 0, [], waits=False)
    at = taken = 0
    while at < size or taken < len(numbers):
        some = numbers[taken : taken + DESCRIPTORS_MAX]
        at = min(at + part_bytes, size) if some else size
        taken += len(some)
        last = at == size and taken == len(numbers)
        yield Piece(wire.pack_part_head(call_id, len(some)), at, some, waits=bool(some) and not last)


class Gathered:
    """A record on its way out, in the buffers that it lies in: joined, each would be copied once more.

    Args:
        buffers: its bytes.
        part_bytes: that go in one part.
        listens: it is sent only as long as there is nothing to receive.

    Attributes:
        size: bytes of it.
    """

    __slots__ = ("_held", "_listens", "_struct", "size")

    def __init__(self, buffers: Sequence[bytes], part_bytes: int, *, listens: bool = False) -> None:
        held = [ffi.from_buffer(buffer) for buffer in buffers]
        parts = ffi.new("struct iovec[]", [(memory, len(memory)) for memory in held])
        self.size = sum(map(len, buffers))
        self._held = (held, parts)
        self._listens = listens
        self._struct = ffi.new("struct cm_gathered *", (parts, len(held), part_bytes, 0))

    def cut(self, call_id: int, numbers: Sequence[int]) -> Iterator[Piece]:
        """Its pieces: see :func:`cut`."""
        return cut(call_id, self.size, numbers, self._struct.most)

    @property
    def sent(self) -> int:
        """How many of its bytes are sent."""
        sent: int = self._struct.at
        return sent

    def send(self, number: int, piece: Piece) -> int:
        """Sends one piece of it, or the rest of that, without waiting; as cm_send_parts(), csrc/cm_parts.h."""
        head, stop, numbers, _ = piece
        return lib.cm_send_parts(number, self._struct, head, len(head), stop, numbers, len(numbers), self._listens)


class Assembly:
    """A long record on its way in.  Owns the descriptors that have come.

    Args:
        begin: what is to come.

    Attributes:
        struct: for C to receive parts of data alone into; see csrc/cm_parts.h.
        size: bytes of the whole record.
        total: descriptors of the whole record.
        descriptors: that have come.
        lost: why some are missing; empty if none are.

    Raises:
        KernelError: the process may have no more memory.
    """

    __slots__ = ("_room", "descriptors", "lost", "size", "struct", "total")

    def __init__(self, begin: wire.Begin) -> None:
        self._room = room_for(begin.size)
        self.size = begin.size
        self.total = begin.descriptors
        self.struct: CData = ffi.new("struct cm_assembly *")
        self.struct.data, self.struct.size = self._room, begin.size
        self.struct.awaited, self.struct.id = begin.descriptors, begin.id
        self.descriptors = DescriptorList()
        self.lost = ""

    @property
    def complete(self) -> bool:
        """Whether all parts have come."""
        return bool(lib.cm_assembled(self.struct))

    @property
    def data(self) -> memoryview:
        """The bytes that have come."""
        return memoryview(ffi.buffer(self._room, self.struct.at)).toreadonly()

    @property
    def moved(self) -> int:
        """When the last part came; CLOCK_MONOTONIC, nanoseconds."""
        moved: int = self.struct.moved
        return moved

    def admit(self) -> None:
        """From now on its parts may come."""
        self.struct.moved = time.monotonic_ns()

    def add(self, part: wire.Part, descriptors: DescriptorList, lost: str) -> bool:
        """Adds a part; whether its sender waits for a GO.

        Args:
            part: the record.
            descriptors: that came with it; taken, also on failure.
            lost: why some did not come.

        Raises:
            Malformed: it is not the next part, or more than was announced.
        """
        count, struct = len(descriptors), self.struct
        self.descriptors.take(descriptors)
        stop = struct.at + len(part.payload)
        if part.id != struct.id or stop > self.size or part.descriptors > struct.awaited:
            raise wire.Malformed("a part that was not announced", struct.id)
        struct.awaited -= part.descriptors
        if lost:
            self.lost = lost
        elif count != part.descriptors:
            raise wire.Malformed(f"{part.descriptors} descriptors were announced, {count} came", struct.id)
        ffi.memmove(self._room + struct.at, part.payload, len(part.payload))
        struct.at, struct.moved = stop, time.monotonic_ns()
        return part.descriptors > 0 and not self.complete

    def steal(self) -> DescriptorList:
        """Moves the descriptors out: the caller owns them."""
        stolen = DescriptorList()
        stolen.take(self.descriptors)
        return stolen
