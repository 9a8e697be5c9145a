"""What a file's buffer still has is written out before the file is sent, or the call that it was lent to ends.

flush() has no timeout, so the raw file's write() is replaced for the time of it by one that does not block.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import socket
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import closing
from capmarshal._descriptors.foreign import ForeignFile
from capmarshal._descriptors.layers import raw_of
from capmarshal._kernel.errors import CallTimeout
from capmarshal._kernel.native import FOREVER, NOW
from capmarshal._kernel.waiting import becomes_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

# The raw files whose write() is a system call that may block, and nothing else.
_SYSTEM = (io.FileIO, ForeignFile, socket.SocketIO)

_FLUSHING = "writing out what the file's buffer still had"
_NO_ROOM = "there was no room in time for the bytes that the file's buffer still had"


def flush_within(file: Any, until: int) -> None:
    """Writes a buffered file's pending bytes out, and waits for room where they go no longer than ``until``.

    What is not written by then stays in the buffer: nothing is lost, and nothing will be written twice.  (But of text,
    what its buffer of bytes has no room for is lost, as it is in any error of a TextIOWrapper's.)

    Args:
        file: of Python's io module, or what has a flush() of its own, which is called.
        until: a deadline, see :mod:`capmarshal._kernel.deadline`.

    Raises:
        CallTimeout: whoever reads at the other end has not made room in time.
        OSError, ValueError: as flush() raises them.
    """
    raw = raw_of(file)
    # A regular file always has room.
    if until == FOREVER or not isinstance(raw, _SYSTEM) or raw.seekable():
        file.flush()
        return
    _flush_by(file, lambda number, data: _write_within(number, data, until))


def _flush_by(file: Any, by: Callable[[int, Buffer], int]) -> None:
    """Flushes a file whose bytes go out by a function of ours: given the descriptor and bytes, how many it took."""
    buffer = getattr(file, "buffer", file)
    raw = buffer.raw
    own, here, write = vars(raw), threading.get_ident(), raw.write

    def bounded(data: Buffer) -> int | None:
        return by(raw.fileno(), data) if threading.get_ident() == here else write(data)

    # In the place of the raw file's method, for flush() has no timeout: it keeps account of what write() has taken.
    before = own.get("write")
    own["write"] = bounded
    try:
        # First: there is room for the pending text then.
        buffer.flush()
        file.flush()
    finally:
        if before is None:
            own.pop("write", None)
        else:
            own["write"] = before


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
    if closing.cannot_block(file.fileno()):
        file.flush()
    elif isinstance(raw_of(file), _SYSTEM):
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
    """Writes at least one byte without blocking, whatever flags the open file has; how many it were.

    Raises:
        CallTimeout: there was no room in time.
    """
    flags, most = os.RWF_NOWAIT, len(memoryview(data))
    while True:
        if not becomes_ready(number, select.POLLOUT, until, _FLUSHING):
            raise CallTimeout(_NO_ROOM, ran="no")
        try:
            return os.pwritev(number, [memoryview(data)[:most]], -1, flags)
        except BlockingIOError:
            # Another writer was quicker; for which it has no more time than for one that does not read.
            if time.monotonic_ns() >= until:
                raise CallTimeout(_NO_ROOM, ran="no") from None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not flags:
                raise
            # A FIFO that has a path, a terminal, a pipe of Linux before 6.5.  What polls writable has room for so much
            # (pipe(7)), unless another writer is quicker.
            flags, most = 0, select.PIPE_BUF
