"""Room to receive into: lent to one receiver at a time, and used again.

Kept by a stack, not by thread: a signal handler that receives while its thread does gets another one.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from io import BufferedReader, FileIO
from itertools import repeat
from typing import TYPE_CHECKING

from capmarshal._descriptors.descriptor import Descriptor, in_one_step, undoing
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import table_limit
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.native import CData

# What one record can hold, at most; C tells by the size of one what else it is.
RECORD_MAX = lib.CM_RECORD_MAX

# What the kernel adds to a record in the accounts of its sender: skb overhead, measured.
_OVERHEAD = 32
_ROOM_MIN = 4096
# What a record of most machines' sockets can have.
_ROOM_USUAL = 212_992 - _OVERHEAD


def record_room(sock: int) -> int:
    """Bytes that one record sent on ``sock`` may have: what its send buffer takes, and the receiver has room for.

    Never less than the kernel's smallest send buffer takes (SOCK_MIN_SNDBUF, include/net/sock.h), whatever it says.
    Where that may not be asked, either that or what is usual.
    """
    size = lib.cm_socket_option(sock, socket.SO_SNDBUF)
    if size < 0:
        return _ROOM_USUAL if lib.cm_fits(sock, _ROOM_USUAL) else _ROOM_MIN
    return min(max(size - _OVERHEAD, _ROOM_MIN), RECORD_MAX)


# Memory that nobody writes to is never made real by the kernel, so it is not cleared here.
_allocate = ffi.new_allocator(should_clear_after_alloc=False)
_new, _new_raw = object.__new__, FileIO.__new__
# The oldest goes where there are more.
_idle: deque[Inbox] = deque(maxlen=8)


class Inbox:
    """A ``struct cm_inbox`` with room of its own; owns the descriptors in it until they are stolen.

    Attributes:
        struct: for C to fill.
        bytes: the room; a slice of it is a copy.
        size: where C says how many of them it has received.
        count: where C says how many descriptors.
        numbers: these; all three looked up once, since an attribute of cffi's costs more than what is done with it.
    """

    __slots__ = ("_room", "_within", "bytes", "count", "numbers", "size", "struct")

    def __init__(self, capacity: int = RECORD_MAX, within: CData | None = None) -> None:
        self._room = _allocate("char[]", max(capacity, 1))
        self.bytes: CData = ffi.buffer(self._room)
        # Keeps a larger struct, of which the inbox is a member, as long as this object.
        self._within = within
        self.struct: CData = ffi.new("struct cm_inbox *") if within is None else ffi.addressof(within, "inbox")
        self.size: CData = ffi.addressof(self.struct, "size")
        self.count: CData = ffi.addressof(self.struct, "count")
        self.numbers = memoryview(ffi.buffer(self.struct.descriptors)).cast("i")
        self.struct.data = self._room
        self.struct.capacity = capacity

    def data(self) -> bytes:
        """A copy of the bytes received: what is decoded from it never changes with the next record."""
        copy: bytes = self.bytes[: self.size[0]]
        return copy

    def steal(self) -> DescriptorList:
        """Moves the received descriptors out: the caller owns them."""
        stolen = DescriptorList()
        stolen.take_received(self.struct)
        return stolen

    def steal_each(self, owners: list[Descriptor]) -> None:
        """Moves each received descriptor, if there are any, to an owner of its own, which is added to an empty list."""
        place = self.count
        count = place[0]
        if count == 1:
            owner = _new(Descriptor)
            # Whoever looks at what Ctrl-C leaves finds an owner of nothing, and no half of one.
            owner._number = -1  # noqa: SLF001 - as said below
            owners.append(owner)
            # No call in it: Ctrl-C raises where one ends, and at each moment there is one owner.
            owner._number, place[0] = self.numbers[0], 0  # noqa: SLF001 - as said
            return
        if not count:
            return
        moved = self.numbers[:count].tolist()
        made = [*map(_new, repeat(Descriptor, count))]
        undone = undoing(made)
        # No call between this and the next: what Ctrl-C leaves in the list are owners, if of nothing.
        owners += made
        try:
            # They own it from the next line on.  To say that they are as many costs as much as three of them.
            for owner, owner._number in zip(owners, moved):  # noqa: B007, B905, SLF001 - as said
                pass
            place[0] = 0
        except BaseException:
            # Ctrl-C: unless all have moved, none has.
            if place[0]:
                in_one_step(undone)
            raise

    def steal_reader(self, number: int) -> BufferedReader:
        """Makes a file of the one received descriptor, which has this number; the file then owns it.

        Raises:
            OSError: as io.FileIO raises it.  The inbox owns the descriptor still.
        """
        count = self.count
        # As in `buffered_of()`: empty at first, it can be asked whether it has the descriptor.
        raw = _new_raw(FileIO)
        count[0] = 0
        try:
            raw.__init__(number, "r")  # type: ignore[misc]  # of exactly that class
            return BufferedReader(raw)
        except BaseException:
            if raw.closed:
                count[0] = 1
            raw.close()
            raise

    def close(self) -> None:
        """Closes what was received, here and now: where no close can block."""
        count = self.count
        if count[0] == 1:
            # No call between these two, as in Descriptor.close().
            number, count[0] = self.numbers[0], 0
            lib.lx_close(number)
        else:
            self.steal().close()

    def steal_into(self, private: Private) -> None:
        """Moves the one received descriptor to an owner that has none yet, above the standard streams.

        Where the table has no room for that, it stays what it is.
        """
        numbers = self.struct.descriptors
        lib.cm_above_standard(numbers)
        private.number, numbers[0] = numbers[0], -1
        self.struct.count = 0

    def __del__(self) -> None:
        # Only where an exception, as of Ctrl-C, came between receiving and stealing.
        # At the end of the interpreter, the names of this module may be gone.
        if hasattr(self, "struct") and self.struct.count and process is not None and process.reaper is not None:
            process.reaper.close([self.steal()])


# As borrow() for who can do without its call; raises IndexError where none is idle.
borrow_idle: Callable[[], Inbox] = _idle.pop


def borrow() -> Inbox:
    """An inbox for one record, to be given back; one that an exception prevents from that just goes."""
    try:
        return borrow_idle()
    except IndexError:
        return Inbox()


# Ends what borrow() began.
give_back: Callable[[Inbox], None] = _idle.append


def why_lost() -> str:
    """Why the kernel just withheld descriptors, in words; to be asked before those that came are closed."""
    probe = ffi.new("int *", -1)
    try:
        # Not a copy of anything: a child that is forked just then would keep it, and a channel with it.
        full = lib.cm_make_event(probe) == -errno.EMFILE
    finally:
        if probe[0] >= 0:
            lib.lx_close(probe[0])
    if full:
        return table_limit()
    # There is room: by now, if another thread has closed something since.
    return "the descriptor table had no room at that moment, or a security module refused them"
