"""Lists of descriptors that have one owner, in memory that C reads and writes.

A verb says what becomes of ownership: ``numbers`` are borrowed, ``take`` moves in, ``steal`` moves out, ``dup`` copies.
Each move is one assignment without a call in it, and Python raises Ctrl-C, or lets another thread fork, only where a
call ends: so at each moment a descriptor is in one place.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from capmarshal._descriptors.descriptor import Descriptor, in_one_step, undoing
from capmarshal._kernel.errors import check
from capmarshal._kernel.ints import array_of
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._kernel.native import CData

_new = object.__new__
_EMPTY = ffi.new("struct cm_descriptors *", (0, 0))


def _room_for(count: int) -> CData:
    """Memory for so many, which closes what it still owns when it goes.

    By C: a __del__ may be ended by the Ctrl-C that made it necessary, before it has begun; and one that has nothing to
    do, at the end of each call, would swallow a Ctrl-C that comes just then.
    """
    return ffi.gc(ffi.new("struct cm_descriptors *", (count, [-1] * count)), lib.cm_close_all) if count else _EMPTY


class DescriptorList:
    """Owns any number of descriptors, in places counted from 0.

    One that is forgotten is closed.

    Attributes:
        struct: for C to read, and to close.
    """

    __slots__ = ("__weakref__", "struct")

    def __init__(self) -> None:
        self.struct: CData = _EMPTY

    @classmethod
    def of(cls, descriptors: Sequence[Descriptor]) -> DescriptorList:
        """Takes what each of them owns; the place of one that was closed is empty."""
        made = cls.with_room(len(descriptors))
        if descriptors:
            made.take_each(descriptors)
        return made

    @classmethod
    def with_room(cls, count: int) -> DescriptorList:
        """A list without places, that can be given so many."""
        made = cls()
        if count:
            made.struct = _room_for(count)
            made.struct.count = 0
        return made

    def take_each(self, descriptors: Sequence[Descriptor], moved: Sequence[int] | None = None) -> None:
        """Takes what each of them owns into this list, which has no places yet, but room for them.

        Args:
            descriptors: one at least.
            moved: what they own, where that has just been looked at.
        """
        struct, count = self.struct, len(descriptors)
        if count == 1:
            descriptor = descriptors[0]
            # No call in it, as said above.
            struct.numbers[0], descriptor._number, struct.count = descriptor._number, -1, 1  # noqa: SLF001 - moved
            return
        if moved is None:
            moved = [descriptor._number for descriptor in descriptors]  # noqa: SLF001 - owned by the list further down
        struct.numbers[0:count] = array_of(moved)
        undone = undoing(descriptors, moved)
        try:
            for descriptor in descriptors:
                descriptor._number = -1  # noqa: SLF001 - likewise
            struct.count = count
        except BaseException:
            # Ctrl-C: unless all have moved, none has.
            if not struct.count:
                in_one_step(undone)
            raise

    @classmethod
    def dup_of(cls, numbers: Sequence[int]) -> DescriptorList:
        """Copies of descriptors, which are borrowed: of all or of none.

        Raises:
            TableFull: no room for them all.
            KernelError: one is not open.
        """
        made = cls()
        made.struct = _room_for(len(numbers))
        try:
            check(lib.cm_dup_all(made.struct, numbers), "duplicating descriptors")
        except BaseException:
            # They are open elsewhere too, so that no close is the last, which alone could block.
            made.close()
            raise
        return made

    def __len__(self) -> int:
        count: int = self.struct.count
        return count

    def __bool__(self) -> bool:
        """Whether it owns any."""
        return max(self.numbers(), default=-1) >= 0

    def numbers(self) -> list[int]:
        """The descriptors, borrowed; -1 for an empty place."""
        struct = self.struct
        return ffi.unpack(struct.numbers, struct.count) if struct.count else []

    def take(self, other: DescriptorList) -> None:
        """Moves all of another list's to the end of this one; the other has no places after that."""
        added = other.struct
        if not added.count:
            return
        if not self.struct.count:
            self.struct, other.struct = added, _EMPTY
            return
        before = self.struct
        whole = _room_for(before.count + added.count)
        # One owner also where Ctrl-C comes between two of these: C leaves empty places behind.
        lib.cm_move(whole.numbers, before.numbers, before.count)
        self.struct, moved = whole, before.count
        lib.cm_move(whole.numbers + moved, added.numbers, added.count)
        other.struct = _EMPTY

    def take_received(self, inbox: CData) -> None:
        """Moves the descriptors of a ``struct cm_inbox`` into this list, which has none yet."""
        count = inbox.count
        if not count:
            return
        self.struct = whole = _room_for(count)
        lib.cm_move(whole.numbers, inbox.descriptors, count)
        inbox.count = 0

    def steal(self, place: int) -> Descriptor:
        """Moves one out, which the caller owns; its place is empty after that.

        Raises:
            IndexError: there is no such place.
            ValueError: it is empty.
        """
        struct = self.struct
        if not 0 <= place < struct.count:
            raise IndexError(f"no place {place} in a list of {struct.count} descriptors")
        numbers = struct.numbers
        if numbers[place] < 0:
            raise ValueError(f"descriptor {place} of the list was taken before")
        stolen = _new(Descriptor)
        stolen._number, numbers[place] = numbers[place], -1  # noqa: SLF001 - moved, as said above
        return stolen

    def steal_rest(self) -> DescriptorList:
        """Moves all out to a list of their own; this one has no places after that, but its room."""
        stolen, struct = DescriptorList.with_room(len(self)), self.struct
        if struct.count:
            stolen.struct.count = struct.count
            lib.cm_move(stolen.struct.numbers, struct.numbers, struct.count)
            struct.count = 0
        return stolen

    def steal_all(self) -> list[Descriptor]:
        """Moves all out, which the caller owns, one for each place; this list has no places after that."""
        struct = self.struct
        # Not by __init__, and owners of nothing yet: there may be hundreds.
        stolen = [*map(_new, repeat(Descriptor, struct.count))]
        undone = undoing(stolen)
        try:
            for descriptor, number in zip(stolen, self.numbers(), strict=True):
                descriptor._number = number  # noqa: SLF001 - they own it from the next line on
            self.struct, struct.count = _EMPTY, 0
        except BaseException:
            # Ctrl-C: unless all have moved, none has.
            if struct.count:
                in_one_step(undone)
            raise
        return stolen

    def close(self) -> None:
        """Closes them all, here and now: at a place where closing may block.  Does nothing the second time."""
        lib.cm_close_all(self.struct)

    def __repr__(self) -> str:
        return f"<DescriptorList of {len(self)}>"


def identities_in(lists: Sequence[DescriptorList]) -> list[list[tuple[int, int]]]:
    """The sockets in each of some lists, which other threads may be closing: number, and identity as of cm_identify().

    In one crossing into C: a busy thread may have the interpreter for long after each.
    """
    numbers = [each.numbers() for each in lists]
    room = sum(map(len, numbers))
    identities = ffi.new("int64_t[]", room)
    lib.cm_identify([each.struct for each in lists], len(lists), identities, room)
    told = iter(ffi.unpack(identities, room) if room else ())
    found = [[(number, next(told)) for number in each] for each in numbers]
    return [[(number, identity) for number, identity in each if number >= 0 and identity] for each in found]
