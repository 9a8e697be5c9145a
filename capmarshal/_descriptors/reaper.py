"""Closes what a stranger sent: on the spot where that cannot block, else in threads of its own.

A TCP socket with SO_LINGER and unsent data takes as long to close as its sender chose, a file of a FUSE file
system as long as its server likes; and a unix socket may have either in its queue.  None of that may delay a
thread that serves others, nor what others sent: a sender occupies few of the threads, and whoever begins to close makes
sure that another thread is ready.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import errno
import itertools
import sys
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors.closed_in_fork import BeforeFork
from capmarshal._descriptors.closing import ClosableFile, close_quick, closed_at_once, sorted_out
from capmarshal._descriptors.closing_jobs import Ends, Job, Sender
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.mounts import mounts
from capmarshal._descriptors.process import process
from capmarshal._descriptors.reaper_threads import Threads
from capmarshal._kernel.deadline import in_force
from capmarshal._kernel.waiting import Wait, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from capmarshal._descriptors.descriptor import Descriptor
    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.waiting import Steps

_PAUSE = 0.001
# Nanoseconds that a full table is waited for, and between two looks at it.
_ROOM_PATIENCE, _ROOM_PAUSE = 1_000_000_000, 1_000_000


class Reaper:
    """The jobs that are not done yet.

    Attributes:
        done: how many were.
    """

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._threads = Threads(self._forget)
        self._numbers = itertools.count()
        # A job is taken out only after all is closed: a child forked meanwhile finds it, and closes its own copies.
        self._open: dict[int, tuple[int, Job]] = {}
        # Those of which all is closed, and somebody is being told so, or whose sender is let go.
        self._telling: set[int] = set()
        self.done = 0
        # All that nobody in particular sent.
        self._own = Sender()
        self._before_fork = BeforeFork()

    def close(
        self,
        things: Sequence[ClosableFile | DescriptorList],
        sender: Sender | None = None,
        then: Callable[[], None] | None = None,
    ) -> bool:
        """As the module's :func:`close`."""
        if len(things) == 1 and closed_at_once(things[0]):
            return True
        descriptors, files = sorted_out(things)
        left = close_quick(descriptors) if descriptors else 0
        slow = [file for file in files if not closed_at_once(file)]
        if not left and not slow:
            return True
        return self._do(Job(descriptors, left, slow, sender or Sender(self._own), then))

    def close_ends(
        self,
        ends: DescriptorList,
        sender: Sender,
        tell: Callable[[int], None],
        then: Callable[[], None] | None = None,
    ) -> bool:
        """As the module's :func:`close_ends`."""
        return self._do(Ends(ends, sender, tell, then))

    def close_socket(self, owner: Descriptor | Private, sender: Sender | None) -> None:
        """As the module's :func:`close_socket`."""
        self._do(Job(DescriptorList(), 0, [owner], sender or Sender(self._own), None))

    def _do(self, job: Job) -> bool:
        """Has a thread do a job, or does it where none can be had; whether it is done."""
        if sys.is_finalizing():
            # No thread begins any more, and the kernel closes all of it in a moment.
            return True
        try:
            ready = self._threads.ready()
            if not ready:
                job.run()
        except BaseException:
            # Ctrl-C: whoever comes next has a thread started, or does it.
            self._enter(job)
            raise
        if ready:
            self._enter(job)
            return False
        self.done += 1
        return True

    def _enter(self, job: Job) -> None:
        item = (next(self._numbers), job)
        number, count, sender, user = item[0], job.count, job.sender, job.sender.of
        # No call between here and the last line: Ctrl-C leaves a job counted, known and queued, or nothing of that.
        sender.waiting += count
        if user is not None:
            user.waiting += count
        self._open[number] = item
        self._threads.queue.put(item)

    def _forget(self, number: int, job: Job) -> None:
        """Of a job that is done; what Ctrl-C has kept it from, it does when it is called again."""
        with self._threads.lock:
            count, sender, user = job.count, job.sender, job.sender.of
            self._telling.add(number)
            # No call in this block, as in _enter(): a job is counted, and known, or neither.
            if number in self._open:
                self.done += 1
                sender.waiting -= count
                if user is not None:
                    user.waiting -= count
                del self._open[number]
        if job.then is not None:
            try:
                with contextlib.suppress(Exception):
                    job.then()
            finally:
                # Not a second time: it may have been told.
                job.then = None
        # Who has sent it may go with it, and leave something to be closed in turn: who waits waits for that, too.
        job.sender = self._own
        self._telling.discard(number)

    def prepare(self) -> None:
        """As the module's :func:`prepare`."""
        mounts.open()
        self._threads.prepare()

    @property
    def behind(self) -> bool:
        """Whether something that was handed over is still open."""
        return bool(self._open)

    def wait(self, seconds: float) -> bool:
        """As the module's :func:`wait`."""
        before = (*self._open, *self._telling)
        return self._until(
            lambda: self._open.keys().isdisjoint(before) and self._telling.isdisjoint(before),
            time.monotonic() + seconds,
        )

    def end_threads(self, seconds: float) -> bool:
        """As the module's :func:`end_threads`."""
        deadline = time.monotonic() + seconds
        return self.wait(seconds) and self._threads.end(deadline)

    def go_on(self) -> None:
        """As the module's :func:`go_on`."""
        self._threads.go_on()

    def with_room(self, make: Callable[[], int]) -> Steps[int]:
        """As the module's :func:`with_room`, in steps."""
        give_up = 0
        while True:
            done = self.done
            result = make()
            if result != -errno.EMFILE:
                return result
            process.give_way()
            give_up = give_up or min(time.monotonic_ns() + _ROOM_PATIENCE, in_force())
            while self.done == done and self._open and (now := time.monotonic_ns()) < give_up:
                # One that was started may not have begun.
                self._threads.ready()
                yield Wait(-1, 0, min(now + _ROOM_PAUSE, give_up))
            if self.done == done:
                return result

    def _until(self, condition: Callable[[], bool], deadline: float) -> bool:
        while not condition():
            if time.monotonic() >= deadline:
                return False
            # One that was started may not have begun.
            self._threads.ready()
            time.sleep(_PAUSE)
        return True

    def let_threads_begin(self) -> None:
        """Before the interpreter ends: a thread that is still beginning then would find it gone, and crash."""
        self._threads.let_begin()

    def before_fork(self) -> None:
        """Notes what may be closed while the process is being forked."""
        self._before_fork.note(self._being_closed)

    def _being_closed(self) -> list[DescriptorList]:
        """The lists that threads close, or are about to."""
        lists = [job.descriptors for _, job in tuple(self._open.values())]
        return lists + [each for each in tuple(process.lists.values()) if isinstance(each, DescriptorList)]

    def after_fork(self) -> None:
        """Forgets that, in the parent."""
        self._before_fork.forget()

    def in_child(self) -> None:
        """Begins anew in a forked child: the threads, and whoever held the lock, do not exist there."""
        jobs = [job for _, job in self._open.values()]
        left = self._before_fork.closed_meanwhile()
        self._begin_anew()
        for job in jobs:
            job.in_child(Sender(self._own))
            self._enter(job)
        if jobs:
            self._threads.ready()
        if left:
            self.close([left])


_reaper = Reaper()
process.reaper = _reaper


def close(
    things: Sequence[ClosableFile | DescriptorList],
    sender: Sender | None = None,
    then: Callable[[], None] | None = None,
) -> bool:
    """Closes what came from somebody, and waits for none of it.

    What cannot block is closed on the spot, the rest by a thread of the reaper; or here and now where no thread can be
    had.  Nothing that a thing's own close() raises comes out, nor does it keep the others open.

    Args:
        things: taken.
        sender: who sent it: he occupies but a few threads.
        then: called by one of the threads when the last is closed, unless this returns True.

    Returns:
        Whether all is closed already.
    """
    return _reaper.close(things, sender, then)


def close_ends(
    ends: DescriptorList, sender: Sender, tell: Callable[[int], None], then: Callable[[], None] | None = None
) -> bool:
    """As :func:`close`, of ends of channels that nobody else in this process has.

    One in whose queue no descriptor lies waits for nothing that its sender has the threads occupied with.

    Args:
        ends: taken; nothing more comes to any of them.
        sender: who knocked.
        tell: called by one of the threads with the number of each that has to wait.
        then: as there.

    Returns:
        Whether all is closed already.
    """
    return _reaper.close_ends(ends, sender, tell, then)


def close_socket(owner: Descriptor | Private, sender: Sender | None) -> None:
    """As :func:`close`, of an AF_UNIX socket: what may be in its queue nobody can tell, so nothing is asked."""
    _reaper.close_socket(owner, sender)


def close_within(seconds: float, things: Sequence[ClosableFile | DescriptorList]) -> bool:
    """As :func:`close`, and waits for what may block, but not for longer; whether all is closed."""
    ended = _thread.allocate_lock()
    ended.acquire()
    return close(things, then=ended.release) or ended.acquire(timeout=seconds)


@contextlib.contextmanager
def closing(connection: Private) -> Iterator[Private]:
    """Closes a connection to a stranger at the end of the block: what he has sent there may take long to close."""
    try:
        yield connection
    finally:
        close([connection])


def prepare() -> None:
    """Has all that closing takes ready: a thread, which may not be had when it is needed, and the list of mounts."""
    _reaper.prepare()


def behind() -> bool:
    """Whether something that was handed over is still open."""
    return _reaper.behind


def wait(seconds: float) -> bool:
    """Waits until all that was handed over before is closed, and who was to be told of it has been.

    Args:
        seconds: until then.

    Returns:
        False if it took longer than that.
    """
    return _reaper.wait(seconds)


def end_threads(seconds: float) -> bool:
    """As :func:`wait`, and has the threads end, and none begin until :func:`go_on` is called, whatever this returns.

    What is handed over meanwhile, by a signal handler or the garbage collector, waits until then.

    Args:
        seconds: until then.

    Returns:
        False if it took longer than that.
    """
    return _reaper.end_threads(seconds)


def go_on() -> None:
    """Has threads begin again, after :func:`end_threads`, where something is to be closed."""
    _reaper.go_on()


def with_room(make: Callable[[], int]) -> int:
    """The result of ``make``, which makes descriptors, and is called again where the table was full.

    That is: it returned -EMFILE, and the reaper has closed something since, or does so within a second, or the time
    that :class:`capmarshal.timeout` leaves if that is less.  So is what nobody uses at the moment.
    """
    return drive(_reaper.with_room(make))


atexit.register(_reaper.let_threads_begin)
