"""Closes what a stranger sent, in threads of its own, since closing can block.

A TCP socket with SO_LINGER and unsent data takes as long to close as its sender chose, a file of a FUSE file
system as long as its server likes; and a unix socket may have either in its queue.  None of that may delay a
thread that serves others, nor what others sent: whoever begins to close makes sure that another is ready.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol

from capmarshal._descriptors import private as _private
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

# Threads, and so closes that block at the same time; beyond that, the next waits for one of them to end.
_WORKERS_MAX = 16

# So many descriptors of one record are asked whether they close quickly; for more, waking the reaper is cheaper.
_ASKED_MAX = 64


class Closable(Protocol):
    """A file, a socket, a :class:`Descriptor`: its close() does nothing the second time."""

    def close(self) -> None:
        """Closes it."""
        ...


class ClosableFile(Closable, Protocol):
    """One that says what its descriptor is."""

    def fileno(self) -> int:
        """The descriptor, borrowed; raises ValueError once it is closed."""
        ...


class _Work:
    """What there is to close, and who does it."""

    def __init__(self, handed_over: list[Closable]) -> None:
        self._numbers = itertools.count()
        # An item is taken out only after it is closed: a child forked meanwhile finds it, and closes its own copy.
        self._open: dict[int, Closable] = {}
        # Unlike a Semaphore or a Queue, it may be used in a signal handler that interrupts its use.
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._state = threading.RLock()
        self._workers = self._busy = 0
        for closable in handed_over:
            self._enter(closable)

    def _enter(self, closable: Closable) -> None:
        number = next(self._numbers)
        self._open[number] = closable
        self._waiting.put(number)

    def close(self, closable: Closable) -> None:
        """Has it closed."""
        if sys.is_finalizing():
            # No thread begins any more, and the kernel closes all of it in a moment.
            return
        self._enter(closable)
        if not self._workers:
            self._add_worker()

    @property
    def behind(self) -> bool:
        """Whether something that was handed over is still open."""
        return bool(self._open)

    def open(self) -> list[Closable]:
        """What is not closed yet."""
        return list(self._open.values())

    def wait(self, seconds: float) -> bool:
        """Whether all that was entered before is closed within that time."""
        deadline = time.monotonic() + seconds
        before = list(self._open)
        if before and not self._workers:
            self._add_worker()
        pause = threading.Event()
        while any(number in self._open for number in before):
            if time.monotonic() >= deadline:
                return False
            pause.wait(0.001)
        return True

    def _add_worker(self) -> None:
        with self._state:
            if self._workers == _WORKERS_MAX or self._workers > self._busy:
                return
            self._workers += 1
        try:
            threading.Thread(target=self._run, name="capmarshal reaper", daemon=True).start()
        except BaseException as error:
            # Ctrl-C, or no room for one more thread: the next to come tries again.
            self._workers -= 1
            if not isinstance(error, RuntimeError):
                raise

    def _run(self) -> None:
        while True:
            number = self._waiting.get()
            with self._state:
                self._busy += 1
            self._add_worker()
            with contextlib.suppress(Exception):
                self._open[number].close()
            del self._open[number]
            with self._state:
                self._busy -= 1


_work = _Work([])


def close(closable: Closable) -> None:
    """Closes ``closable`` soon, elsewhere; the reaper owns it now.  Errors in closing are nobody's."""
    _work.close(closable)


def close_descriptor(descriptor: int) -> None:
    """Closes a descriptor that a stranger sent: at once where that is known to be quick, else by the reaper."""
    if lib.cm_closes_quickly(descriptor):
        lib.lx_close(descriptor)
    else:
        close(Descriptor(descriptor))


def _closed_at_once(file: ClosableFile) -> bool:
    try:
        quick = lib.cm_closes_quickly(file.fileno())
    except ValueError:  # closed already
        return True
    if quick:
        file.close()
    return bool(quick)


class _Numbers:
    """Descriptors on their way out: moved here from their owners, and closed in one crossing.

    C takes each out before it closes it, so that a child forked meanwhile closes what is left, its own copies.
    """

    def __init__(self, descriptors: Sequence[Descriptor]) -> None:
        count = len(descriptors)
        # Closed with it too, where Ctrl-C kept it from being handed over: by C, since a __del__ would swallow the next.
        self._batch = ffi.gc(ffi.new("struct cm_batch *", (count, [-1] * count)), lib.cm_close_all)
        array = self._batch.descriptors
        for place, descriptor in enumerate(descriptors):
            # One owner at each moment: Ctrl-C raises where a call ends, and this is none.
            array[place], descriptor._number = descriptor._number, -1  # noqa: SLF001 - a method would take twice as long

    def close_quick(self) -> bool:
        """Closes those that close quickly; whether that was all."""
        return lib.cm_close_quick(self._batch) == 0

    def close(self) -> None:
        """Closes them all."""
        lib.cm_close_all(self._batch)


class _Batch:
    """Files that are closed one after the other: of one sender, who delays none but his own."""

    def __init__(self, files: list[ClosableFile]) -> None:
        self._files = files

    def close(self) -> None:
        for file in self._files:
            with contextlib.suppress(Exception):
                file.close()


def close_files(files: Sequence[ClosableFile]) -> None:
    """The same for files, sockets or :class:`Descriptor` that came in one record; wakes the reaper at most once.

    Many are all left to it, for to ask of each whether it closes quickly would take longer; not while it is behind, or
    what could be closed at once would pile up.
    """
    asked = len(files) <= _ASKED_MAX or _work.behind
    if len(files) > 1 and set(map(type, files)) == {Descriptor}:
        numbers = _Numbers(files)  # type: ignore[arg-type]  # that is what they are
        if not (asked and numbers.close_quick()):
            close(numbers)
        return
    slow = [file for file in files if not _closed_at_once(file)] if asked else list(files)
    if slow:
        close(_Batch(slow))


def wait(seconds: float) -> bool:
    """Waits until all that was handed over before is closed; False if that took longer than ``seconds``."""
    return _work.wait(seconds)


def _forget() -> None:
    global _work  # the parent's threads do not exist in the child, and its locks may be held by them
    _work = _Work(_work.open())


_private.run_in_child(_forget)
