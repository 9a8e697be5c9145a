"""A data loader: processes that decode, and a loop that gets their arrays without a copy.

A *worker* asks its desk for a job, decodes it into a buffer of its own pool, and delivers that.  The loop looks at the
array of the same memory; when it lets go of it, the worker's pool has the buffer back::

    loader                                      worker, as many as are wanted
      desk, one a worker  <---- next_job() ----   buffer = pool.take()
      ready <------------- deliver(buffer) ----   decodes into it
        |
        for array in loader: ...  lets go ----->  the pool lends it again

So a worker is never more than its pool ahead of the loop (back-pressure), and nothing is copied, allocated or mapped
for each array.  Whoever leaves the loop in the middle ends the workers; the job of one that died is done by another.

The workers are the loader's own program, and trusted: they could still write to what they delivered.  From others take
``cm.Dataspace`` instead, which nobody can change: ``cm.Dataspace.create(SHAPE, FORMAT)`` in place of ``pool.take()``,
and ``seal()`` before it is delivered.

    python loader.py

prints what became of 48 jobs, though a worker is killed in the middle, and of a loop that is left.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

import capmarshal as cm

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator
    from typing import Self

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

SHAPE, FORMAT = (64, 128, 128), "f"  # an array: 4 MiB
BUFFERS = 3  # of a worker: one that it decodes into, and two that are on their way or looked at
DEATHS_MAX = 10  # of workers: there is something wrong with the jobs, then


class Desk(cm.Interface):
    """What a worker may ask of its loader."""

    @cm.method
    def next_job(self) -> int | None:
        """What to decode next; None when there is nothing left."""

    @cm.method
    def deliver(self, batch: cm.SharedBuffer) -> None:
        """The job is done."""


# The worker ----------------------------------------------------------------------------------------------------------


def decode(job: int, array: Array) -> None:
    """Stands for what takes time: here, random numbers by the job's own seed."""
    np.random.default_rng(job).random(out=array, dtype=np.float32)


def work() -> None:
    """Does jobs until there are none, or the loader has gone."""
    desk = cm.parent().cast(Desk)
    with cm.BufferPool(BUFFERS, SHAPE, FORMAT) as pool, contextlib.suppress(cm.Disconnected):
        while (job := desk.next_job()) is not None:
            with pool.take() as buffer:
                decode(job, np.asarray(buffer))
                desk.deliver(buffer)


# The loader ----------------------------------------------------------------------------------------------------------


class LoadersDesk(Desk):
    """The desk of one worker: each has its own, so that it is known whose job was lost.

    Attributes:
        job: what the worker is at.
    """

    def __init__(self, jobs: collections.deque[int], ready: queue.SimpleQueue[Any]) -> None:
        self.job: int | None = None
        self._jobs = jobs
        self._ready = ready
        self._lock = threading.Lock()
        self._closed = False

    def next_job(self) -> int | None:
        """See :meth:`Desk.next_job`."""
        with self._lock:
            self.job = self._jobs.popleft() if self._jobs and not self._closed else None
            return self.job

    def deliver(self, batch: cm.SharedBuffer) -> None:
        """See :meth:`Desk.deliver`."""
        with self._lock:
            # Of a worker that is taken for dead nothing is kept: it goes when the call ends.
            if not self._closed:
                self.job = None
                self._ready.put(cm.keep(batch))

    def close(self) -> int | None:
        """Has no more to do with the worker, which has died; which job it was at."""
        with self._lock:
            self._closed = True
            return self.job


class Loader:
    """Arrays, in the order in which they are ready.

    A context manager, at whose end no worker is left; to be iterated over once.

    Args:
        jobs: what to decode.
        workers: how many processes do.

    Attributes:
        children: all that were started.
    """

    def __init__(self, jobs: Iterable[int], workers: int = 2) -> None:
        self.children: list[subprocess.Popen[bytes]] = []
        self._jobs = collections.deque(jobs)
        self._left = len(self._jobs)
        self._workers = workers
        self._deaths = 0
        # What was delivered; and the desks whose workers have ended.
        self._ready: queue.SimpleQueue[cm.SharedBuffer | LoadersDesk] = queue.SimpleQueue()
        self._entrypoint = cm.Entrypoint("loader")
        self._watchers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._entrypoint.__enter__()
        for _ in range(self._workers):
            self._hire()
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.terminate()
        for watcher in self._watchers:
            watcher.join()
        self._entrypoint.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait().close()

    def __iter__(self) -> Iterator[Array]:
        while self._left:
            came = self._ready.get()
            if isinstance(came, LoadersDesk):
                self._replace(came)
                continue
            self._left -= 1
            # No variable here has the array, so the buffer is the loop's alone: it goes back when that lets go.
            with came:
                batch = [np.asarray(came)]
            yield batch.pop()

    def _hire(self) -> None:
        desk = LoadersDesk(self._jobs, self._ready)
        child = cm.spawn([sys.executable, __file__, "work"], parent=self._entrypoint.manage(desk))
        self.children.append(child)
        self._watchers.append(threading.Thread(target=self._watch, args=(child, desk)))
        self._watchers[-1].start()

    def _watch(self, child: subprocess.Popen[bytes], desk: LoadersDesk) -> None:
        child.wait()
        self._ready.put(desk)

    def _replace(self, desk: LoadersDesk) -> None:
        """Has another worker do what one has left undone."""
        job = desk.close()
        if job is not None:
            self._jobs.appendleft(job)
        if self._jobs:
            self._deaths += 1
            if self._deaths > DEATHS_MAX:
                raise RuntimeError(f"{self._deaths} workers died, the last at job {job}")
            self._hire()


def main() -> None:
    """Two loops: one to the end, in which a worker is killed, and one that is left in the middle."""
    means = []
    with Loader(range(48)) as loader:
        for array in loader:
            means.append(float(array.mean()))
            if len(means) == 8:
                loader.children[0].kill()
    workers, mean = len(loader.children), sum(means) / len(means)
    print(f"{len(means)} arrays {array.shape} of {array.dtype}, mean {mean:.3f}, by {workers} workers for 2 places")
    with Loader(range(48)) as loader:
        array = next(iter(loader))
    left = sum(child.poll() is None for child in loader.children)
    print(f"left in the middle: {left} workers are there, and the array is still {array.shape}")


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        main()
