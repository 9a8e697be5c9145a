"""BufferPool: shared buffers that are lent, and lent again when every receiver has let go."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import sys
import threading
from typing import TYPE_CHECKING

from capmarshal._descriptors.array_layout import ArrayLayout
from capmarshal._descriptors.memory import FIXED, Memory, make_memory
from capmarshal._descriptors.moving import stolen
from capmarshal._descriptors.private import Private, make_epoll_set, make_event, make_pair
from capmarshal._descriptors.shared_buffer import Lease, SharedBuffer, mappings_of
from capmarshal._kernel.deadline import after, words_for
from capmarshal._kernel.errors import WATCHING, CallTimeout, Closed, check
from capmarshal._kernel.native import NULL, ffi, lib
from capmarshal._kernel.numbers import check_whole
from capmarshal._kernel.waiting import becomes_ready

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from capmarshal._descriptors.descriptor import Descriptor

_WHAT = "shared buffer"
# One that is lent takes descriptors, of which a process has no more than that, unless somebody has changed fs.nr_open.
_COUNT_MAX = 1 << 20
# What the epoll set says of the end of the pool; of a lease it says the token of its buffer.
_END = (1 << 64) - 1


class _Item:
    """One buffer's memory, once it was lent, and the pool's end of its lease, while it is lent.

    Attributes:
        token: what the epoll set says of the lease: another each time that it is lent, with the same remainder by the
            number of buffers, its place.
    """

    __slots__ = ("lease", "memory", "token")

    def __init__(self, place: int) -> None:
        self.memory: Descriptor | None = None
        self.lease: Private | None = None
        self.token = place


class BufferPool:
    """So many buffers, of one size, that :meth:`take` lends.

    One is lent again when every process that received it has let go of it, or died; see :class:`SharedBuffer`.  Its
    memory is made when it is lent for the first time.  A context manager.  Threads may share a pool; a forked child
    has none of it.

    Args:
        count: how many, and so how many may be on their way or in use at the same time.
        shape: of each: how many bytes; or, of an array, how many items along each dimension.
        format: of an item, as of :meth:`Dataspace.create`.

    Raises:
        ValueError, TypeError: no such count, shape or format.
        TableFull: no room for a descriptor.
    """

    def __init__(self, count: int, shape: int | Sequence[int], format: str = "B") -> None:  # noqa: A002 - as there
        check_whole(count, f"a pool has 1 or more buffers, {_COUNT_MAX} at most, not {count!r}", 1, _COUNT_MAX)
        self._count = count
        self._layout = ArrayLayout.asked_for(shape, format)
        self._number = int.from_bytes(os.urandom(8), sys.byteorder)
        self._mappings = mappings_of(self._number)
        if not self._layout.size:
            raise ValueError("a buffer has 1 byte or more")
        # Re-entrant: a signal handler may close the pool in which its thread takes, or take, too.
        self._lock = threading.RLock()
        self._items = [_Item(place) for place in range(count)]
        self._closed = False
        # Threads that wait for a buffer: the last to leave a pool that was closed closes what they wait at.
        self._waiting: set[object] = set()
        self._hangups = make_epoll_set()
        self._end = make_event()
        event = ffi.new("struct epoll_event *", (select.EPOLLIN, (_END,)))
        check(
            lib.lx_epoll_ctl(self._hangups.number, lib.EPOLL_CTL_ADD, self._end.number, event),
            "making a pool",
            WATCHING,
        )

    @property
    def closed(self) -> bool:
        """Whether it lends no more: closed, or another process's."""
        return self._closed or self._hangups.number < 0

    def take(self, timeout: float | None = None) -> SharedBuffer:
        """Lends a buffer: the caller's to write, to hand over and to close.

        All zero at first, and with what was in it when it comes again.

        Args:
            timeout: seconds to wait for one, within the deadline that is in force; None waits as long as that says.

        Raises:
            CallTimeout: every buffer is still held.
            Closed: the pool was closed, or is that of the process that this one was forked from.
            TableFull, KernelError: no room for descriptors, or no memory (ENOSPC).
        """
        deadline = after(timeout)
        while True:
            # Before the lock: in a forked child, a thread that is not there may have it.
            self._check_open()
            with self._lock:
                self._check_open()
                self._collect()
                item = self._claimed()
                if item is not None:
                    try:
                        return self._lent(item)
                    except BaseException:
                        self._end_lease(item)
                        raise
            if not self._wait(deadline):
                raise CallTimeout(
                    f"no buffer of the pool came back {words_for(timeout, deadline)}: all {self._count} are held by "
                    "those who received them, or by views and arrays of them",
                    ran="no",
                )

    def close(self) -> None:
        """Lends no more.  What is lent stays with those who have it.  Does nothing the second time."""
        if self._hangups.number < 0:
            # Closed before, or another process's: the lock may be held by a thread that is not there.
            self._closed = True
            for item in self._items:
                self._close_memory(item)
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for item in self._items:
                self._end_lease(item)
                self._close_memory(item)
            os.eventfd_write(self._end.number, 1)
            self._close_if_left()

    def _wait(self, deadline: int) -> bool:
        """Waits until one may have come back; False if none has in time."""
        waiter = object()
        try:
            with self._lock:
                self._check_open()
                self._waiting.add(waiter)
            return becomes_ready(self._hangups.number, select.POLLIN, deadline, "waiting for a shared buffer")
        finally:
            # Whether it was added or not: Ctrl-C may have come first.
            with self._lock:
                self._waiting.discard(waiter)
                self._close_if_left()

    def _close_if_left(self) -> None:
        if self._closed and not self._waiting:
            self._hangups.close()
            self._end.close()

    def _check_open(self) -> None:
        if self.closed:
            raise Closed("a pool that was closed, or is of the process that this one was forked from: make another")

    def _collect(self) -> None:
        """Finds those that everybody has let go of since."""
        events = ffi.new("struct epoll_event[]", self._count)
        found = lib.lx_epoll_pwait(self._hangups.number, events, self._count, 0)
        for event in events[0 : 0 if found == -errno.EINTR else check(found, "looking for buffers that came back")]:
            token = event.data.u64
            item = self._items[token % self._count]
            # No call between these: a signal handler may have found it, too, and have lent it again.
            if item.token == token:
                lease, item.lease = item.lease, None
                self._hang_up(lease)

    def _claimed(self) -> _Item | None:
        """One that nobody holds, and from here on nobody else claims; None if there is none."""
        claim = Private(-1)
        for item in self._items:
            # No call between these, as above.
            if item.lease is None:
                item.lease = claim
                item.token += self._count
                return item
        return None

    def _end_lease(self, item: _Item) -> None:
        lease, item.lease = item.lease, None
        self._hang_up(lease)

    def _hang_up(self, lease: Private | None) -> None:
        if lease is not None and lease.number >= 0:
            # Before the close: a child that was forked may have the same open file.
            lib.lx_epoll_ctl(self._hangups.number, lib.EPOLL_CTL_DEL, lease.number, NULL)
            lease.close()

    def _close_memory(self, item: _Item) -> None:
        if item.memory is not None:
            item.memory.close()

    def _lent(self, item: _Item) -> SharedBuffer:
        """A buffer that was claimed, to be handed to who takes it; its lease is for the caller to end if that fails."""
        item.lease, lent = make_pair("lending a shared buffer")
        lease = stolen(lent.release(), Lease)
        try:
            # Nothing is ever to be read there: what a receiver sends could make the close block.  It may be refused,
            # within a sandbox, and is of use against those only who are not to have a buffer at all.
            lib.lx_shutdown(item.lease.number, socket.SHUT_RD)
            memory = Memory.dup_of(self._memory_of(item))
            try:
                # No events: of a hang-up it tells always.
                event = ffi.new("struct epoll_event *", (0, (item.token,)))
                number = item.lease.number
                result = lib.lx_epoll_ctl(self._hangups.number, lib.EPOLL_CTL_ADD, number, event)
                check(result, "lending a shared buffer", WATCHING)
                return SharedBuffer(memory, lease, self._number, self._layout)
            except BaseException:
                memory.close()
                raise
        except BaseException:
            lease.close()
            raise

    def _memory_of(self, item: _Item) -> Descriptor:
        if item.memory is None:
            made = make_memory(self._layout.size, _WHAT)
            try:
                check(lib.lx_fcntl(made.fileno(), fcntl.F_ADD_SEALS, FIXED), "sealing the size of a shared buffer")
            except BaseException:
                made.close()
                raise
            item.memory = made
        return item.memory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        # What copy.copy() asks, too: two would lend the same memory.
        raise TypeError("a BufferPool is neither copied nor pickled: what goes to another process is a buffer of it")

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<BufferPool of {self._count} buffers of {self._layout.size} bytes{state}>"
