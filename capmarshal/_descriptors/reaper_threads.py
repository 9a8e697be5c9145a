"""The threads by which the reaper closes: a sender occupies few of them, and one that may block has another follow."""

from __future__ import annotations

import _thread
import collections
import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors.closing_jobs import Ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.closing_jobs import Job

# Threads, and so closes that block at the same time; beyond that, the next waits for one of them to end.
THREADS_MAX = 64

# Seconds that a thread has to begin: one that the kernel gave, and that then finds no memory, never does.
_BEGINNING = 1.0
_PAUSE = 0.001


class Threads:
    """They do what is put into their queue, each one job after the other.

    Args:
        closed: called by one of them with a job, and its number, of which all is closed.

    Attributes:
        lock: of what they, and who gives them something, count of each sender.
        queue: the jobs that none has begun, with their numbers; or None, which ends who takes it if it is to.
    """

    def __init__(self, closed: Callable[[int, Job], None]) -> None:
        self._closed = closed
        self.lock = threading.RLock()
        # Unlike a Semaphore or a Queue, it may be used in a signal handler that interrupts its use.
        self.queue: queue.SimpleQueue[tuple[int, Job] | None] = queue.SimpleQueue()
        self._alive = self._busy = 0
        # Until when the thread that was started last is given time to begin.
        self._beginning_until = 0.0
        # They are to end, and none is started: what there is to do waits.
        self._held = False
        # What go_on() has to do itself, and has not done yet.
        self._here: collections.deque[tuple[int, Job] | None] = collections.deque()

    @property
    def alive(self) -> int:
        """How many there are."""
        return self._alive

    def prepare(self) -> None:
        """Has one ready."""
        if not self._alive:
            self.ready()

    def ready(self) -> bool:
        """Whether there is a thread for one more job, now or when another one is done; starts one where none is free.

        Or when :meth:`go_on` is called, if :meth:`end` was.

        Not by threading.Thread, whose start() waits for the thread to begin, for ever if it has died before.
        """
        with self.lock:
            if self._held or self._alive > self._busy or self._alive >= THREADS_MAX:
                return True
            first, now = not self._alive, time.monotonic()
            if now < self._beginning_until and not first:
                return True
            self._beginning_until = now + _BEGINNING
        begun = _thread.allocate_lock()
        begun.acquire()
        try:
            _thread.start_new_thread(self._run, (begun,))
        except (RuntimeError, MemoryError):
            self._beginning_until = 0.0
            return not first
        if first:
            begun.acquire(timeout=_BEGINNING)
        return self._alive > 0

    def _run(self, begun: _thread.LockType) -> None:
        """What a thread does, for as long as the process lives, or until it is told to end."""
        with self.lock:
            self._alive += 1
            self._beginning_until = 0.0
        begun.release()
        while True:
            if (item := self.queue.get()) is None:
                with self.lock:
                    # In one step with go_on(), which counts on who is there.  It may have been called since.
                    if self._held:
                        self._alive -= 1
                        return
                continue
            number, job = item
            if type(job) is Ends and self._close_unladen(job):
                self._closed(number, job)
            elif self._begin(number, job):
                with contextlib.suppress(Exception):
                    # For the next: this one may block.
                    self.ready()
                job.run()
                self._end(job)
                self._closed(number, job)
            # A thread that waits must not keep what it has closed.
            del item, job

    def _close_unladen(self, job: Ends) -> bool:
        """Closes of a job what waits for nobody, on nobody's account; whether that was all."""
        with self.lock:
            self._busy += 1
        with contextlib.suppress(Exception):
            # Before Linux 6.10, whoever closes a unix socket may have to close what others have left in the kernel.
            self.ready()
        closed = job.close_unladen()
        with self.lock:
            self._busy -= 1
            job.count -= closed
            for each in job.sender.chain:
                each.waiting -= closed
        return not job.count

    def _begin(self, number: int, job: Job) -> bool:
        """Whether a thread may do the job now; else it is kept until one of its sender's is done."""
        with self.lock:
            full = next((each for each in job.sender.chain if each.threads >= each.limit), None)
            if full is None:
                for each in job.sender.chain:
                    each.threads += 1
                self._busy += 1
                return True
            if job.tell is None:
                full.parked.append((number, job))
                return False
        # Before another thread may have it, and not while the lock is held.
        job.will_wait()
        return self._begin(number, job)

    def _end(self, job: Job) -> None:
        with self.lock:
            self._busy -= 1
            for each in job.sender.chain:
                each.threads -= 1
                if each.parked:
                    self.queue.put(each.parked.popleft())

    def end(self, deadline: float) -> bool:
        """Has them end, and no other begin, until :meth:`go_on`; False if it took longer.

        What a signal handler raises meanwhile has them go on.
        """
        try:
            return self._all_end(deadline)
        except BaseException:
            self.go_on()
            raise

    def _all_end(self, deadline: float) -> bool:
        with self.lock:
            self._held = True
        while self._alive or time.monotonic() < self._beginning_until:
            if time.monotonic() >= deadline:
                return False
            # Not all at once: one that is beginning was not counted.
            if self.queue.empty():
                self.queue.put(None)
            time.sleep(_PAUSE)
        return True

    def go_on(self) -> None:
        """Has them begin again where there is something to do; which is done here where there is none to be had.

        It may be called once more, where a signal handler has interrupted it.
        """
        with self.lock:
            self._held = False
        if not self.queue.empty() and not self.ready():
            # In C alone, where no signal handler raises: each job is in one of the two.
            with contextlib.suppress(queue.Empty):
                self._here.extend(iter(self.queue.get_nowait, self))
        while self._here:
            if (item := self._here[0]) is not None:
                number, job = item
                job.run()
                self._closed(number, job)
            # Last: until then it is to be done once more.
            self._here.popleft()

    def let_begin(self) -> None:
        """Waits for the thread that was started last to begin, but not for long."""
        deadline = time.monotonic() + _BEGINNING
        while (now := time.monotonic()) < self._beginning_until and now < deadline:
            time.sleep(_PAUSE)
