"""What a file's buffer still has is written out before the file is sent, or the call that it was lent to ends.

flush() has no timeout, so the raw file's write() is replaced for the time of it by one that does not block.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import io
import os
import queue
import select
import socket
import stat
import time
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import closing
from capmarshal._descriptors.foreign import ForeignFile
from capmarshal._descriptors.layers import raw_of
from capmarshal._kernel.deadline import origin, seconds_until
from capmarshal._kernel.errors import CallTimeout
from capmarshal._kernel.native import FOREVER, NOW
from capmarshal._kernel.waiting import AT_A_TIME, becomes_ready
from capmarshal._typed.standing_in import standing_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

# More than anybody has written or read ahead.
_FAR = 1 << 40

# Nanoseconds between two looks whether a flush was given up.
_LOOK_AFTER = 50_000_000

# Seconds that it then takes at most.
_ABOUT_TO = 0.5

# The raw files whose write() is a system call that may block, and nothing else.
_SYSTEM = (io.FileIO, ForeignFile, socket.SocketIO)

_FLUSHING = "writing out what the file's buffer still had"
_LOCKED = "another thread is using the file, and has kept its lock all the time"
_NO_TIME = "there was no time left to write out what the file's buffer still had"
_NO_ROOM = "there was no room in time for the bytes that the file's buffer still had"


def flush_within(file: Any, until: int) -> None:
    """Writes a buffered file's pending bytes out, and waits for room where they go no longer than ``until``.

    What is not written by then stays in the buffer: nothing is lost, and nothing will be written twice.  (But of text,
    what its buffer of bytes has no room for is lost, as it is in any error of a TextIOWrapper's.)

    Args:
        file: of Python's io module, or what has a flush() of its own, which is called.
        until: a deadline, see :mod:`capmarshal._kernel.deadline`.

    Raises:
        CallTimeout: whoever reads at the other end has not made room in time, or another thread keeps the file's lock,
            or the time was up before.
        OSError, ValueError: as flush() raises them.
    """
    raw = raw_of(file)
    # A regular file always has room.
    if until == FOREVER or not isinstance(raw, _SYSTEM) or raw.seekable():
        file.flush()
    elif type(file) is not io.BufferedWriter or pending_in(file, raw):
        _Flush(file, until).done_in_time()


def pending_in(buffer: Any, raw: io.RawIOBase) -> int:
    """How many bytes a buffer holds that were written to it, and not to the raw file; negative: that it has read ahead.

    tell() takes no lock and reads nothing: it asks the raw file where that is, and adds what the buffer holds.
    """
    with standing_in(raw, "tell", lambda: _FAR):
        return int(buffer.tell()) - _FAR


class _Flush:
    """A flush in a thread of its own, which has a deadline where that waits for the file's lock.

    Another thread that writes to a full pipe keeps the lock, and Python has no way to wait for it with a timeout.  What
    is given up writes nothing afterwards, once it has the lock.
    """

    def __init__(self, file: Any, until: int) -> None:
        self._file = file
        self._until = until
        self._begun = self._writing = self._given_up = False
        self._outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def done_in_time(self) -> None:
        """Flushes; what is not done by then is given up."""
        if seconds_until(self._until) <= 0:
            raise CallTimeout(f"{_NO_TIME} ({origin()})", ran="no")
        # Not by threading.Thread, whose start() waits for the thread to begin, for ever if it has died before.
        _thread.start_new_thread(self._run, ())
        try:
            error = self._ended()
        finally:
            # Also after Ctrl-C.
            self._given_up = True
        if isinstance(error, CallTimeout):
            # Of ours: what a signal handler raises comes by no return.
            error = CallTimeout(f"{error} ({origin()})", error.ran)
        if error is not None:
            try:
                raise error
            finally:
                # It refers to this frame.
                del error

    def _ended(self) -> BaseException | None:
        while (left := seconds_until(self._until)) > 0:
            with contextlib.suppress(queue.Empty):
                return self._outcome.get(timeout=min(left, AT_A_TIME))
        if not self._writing:
            return CallTimeout(_LOCKED if self._begun else _NO_TIME, ran="no")
        try:
            # It has the lock, and is about to give up too, unless it is a terminal that has less room than it said.
            return self._outcome.get(timeout=_ABOUT_TO)
        except queue.Empty:
            return CallTimeout(_NO_ROOM, ran="no")

    def _run(self) -> None:
        self._begun = True
        try:
            _flush_by(self._file, self._write)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._outcome.put(error)
        else:
            self._outcome.put(None)

    def _write(self, number: int, data: Buffer) -> int:
        self._writing = True
        while not self._given_up:
            # Not for long: whoever has given this up may be about to leave the program, or to use the file.
            until = min(self._until, time.monotonic_ns() + _LOOK_AFTER)
            written = _write_within(number, data, until)
            if written:
                return written
            if until == self._until:
                break
        raise CallTimeout(_NO_ROOM, ran="no")


def _flush_by(file: Any, by: Callable[[int, Buffer], int]) -> None:
    """Flushes a file whose bytes go out by a function of ours: given the descriptor and bytes, how many it took."""
    buffer = getattr(file, "buffer", file)
    raw = buffer.raw
    # In the place of the raw file's method, for flush() has no timeout: it keeps account of what write() has taken.
    with standing_in(raw, "write", lambda data: by(raw.fileno(), data)):
        # First: there is room for the pending text then.
        buffer.flush()
        file.flush()


def drop_pending(file: Any) -> None:
    """Empties a buffered file's buffer, and writes nothing of it.

    Raises:
        ValueError: it is closed.
    """
    _flush_by(file, lambda _number, data: memoryview(data).nbytes)


class _NotSure(Exception):  # never leaves this module
    """A write could block, whatever is tried against it."""


def flush_without_waiting(file: Any) -> None:
    """As :func:`flush_within`, in a thread that serves others: what a pipe or socket has no room for is not waited for.

    What could block all the same is not tried: files of FUSE, terminals, pipes that cannot be written to without
    blocking.  What is pending for them is written when they are closed, elsewhere.

    Raises:
        CallTimeout: there is no room for all of it.
        OSError, ValueError: as flush() raises them.
    """
    raw = raw_of(file)
    if closing.asks_nobody(file.fileno()):
        file.flush()
    elif isinstance(raw, _SYSTEM) and (type(file) is not io.BufferedWriter or pending_in(file, raw)):
        with contextlib.suppress(_NotSure):
            _flush_by(file, _write_at_once)


def _write_at_once(number: int, data: Buffer) -> int:
    """Writes what there is room for, whatever flags the open file has; how many bytes it were.

    Of other files than pipes and sockets nothing is tried.  Even with RWF_NOWAIT a write waits for the lock of the
    position, which whoever reads from the same open file keeps; and to poll a file of FUSE asks its server
    (fs/fuse/file.c).

    Raises:
        CallTimeout: there is room for none.
        _NotSure: the kernel cannot say that it will not block.
    """
    kind = closing.type_of_file(number)
    if kind not in (stat.S_IFIFO, stat.S_IFSOCK):
        raise _NotSure
    try:
        return os.pwritev(number, [data], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        raise CallTimeout(_NO_ROOM, ran="no") from None
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        if kind == stat.S_IFIFO and not becomes_ready(number, select.POLLOUT, NOW, _FLUSHING):
            raise CallTimeout(_NO_ROOM, ran="no") from None
        raise _NotSure from None


def _write_within(number: int, data: Buffer, until: int) -> int:
    """Writes what there is room for without blocking, whatever flags the open file has; 0: there was none in time."""
    flags, most = os.RWF_NOWAIT, len(memoryview(data))
    while True:
        if not becomes_ready(number, select.POLLOUT, until, _FLUSHING):
            return 0
        try:
            return os.pwritev(number, [memoryview(data)[:most]], -1, flags)
        except BlockingIOError:
            # Another writer was quicker; for which it has no more time than for one that does not read.
            if time.monotonic_ns() >= until:
                return 0
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not flags:
                raise
            # A FIFO that has a path, a terminal, a pipe of Linux before 6.5.  What polls writable has room for so much
            # (pipe(7)), unless another writer is quicker.
            flags, most = 0, select.PIPE_BUF
