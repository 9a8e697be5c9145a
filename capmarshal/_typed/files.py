"""Files on their way: prepared before they are sent, and told apart when they have come."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import closing
from capmarshal._kernel import deadline
from capmarshal._kernel.errors import ArgumentError, CallTimeout
from capmarshal._kernel.native import FOREVER, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._descriptors.descriptor import Descriptor

# The raw files whose write() is a system call that may block, and nothing else.
_SYSTEM = (io.FileIO, socket.SocketIO)

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
    buffer = getattr(file, "buffer", file)
    raw = getattr(buffer, "raw", None)
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


class _NotSure(Exception):  # never leaves this module
    """A write could block, whatever is tried against it."""


def flush_if_sure(file: Any, until: int) -> None:
    """As :func:`flush_within`, in a thread that serves others; what could block all the same is not tried.

    Such are files of FUSE, terminals, and pipes that cannot be written to without blocking: what is pending for them is
    written when they are closed, elsewhere.

    Raises:
        CallTimeout, OSError, ValueError: as said.
    """
    if closing.cannot_block(file.fileno()):
        file.flush()
        return
    with contextlib.suppress(_NotSure):
        _flush_by(file, lambda number, data: _write_within(number, data, until, sure=True))


def _write_within(number: int, data: Buffer, until: int, *, sure: bool = False) -> int:
    """Writes at least one byte without blocking, whatever flags the open file has; how many it were.

    Raises:
        CallTimeout: there was no room in time.
        _NotSure: where that is asked for, and the kernel cannot say that it will not block.
    """
    flags, most = os.RWF_NOWAIT, len(memoryview(data))
    while True:
        ready = lib.cm_wait(number, select.POLLOUT, until)
        if ready in (-errno.ETIMEDOUT, -errno.EAGAIN):
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
            if sure:
                raise _NotSure from None
            # A FIFO that has a path, a terminal, a pipe of Linux before 6.5.  What polls writable has room for so much
            # (pipe(7)), unless another writer is quicker.
            flags, most = 0, select.PIPE_BUF


def prepare(file: Any) -> None:
    """Brings an open file, which both sides will share, to where the program is in it.

    Raises:
        ValueError: nobody knows where that is (a text file in the middle of an iteration), or it cannot be brought
            there (a file of /proc that has been read from).
        CallTimeout: its pending bytes could not be written in time.
    """
    # By what it can do, not by its class: the files of tempfile are wrappers.  A raw file has no buffer.
    if isinstance(file, io.RawIOBase) or not hasattr(file, "seekable"):
        return
    if file.writable():
        try:
            flush_within(file, deadline.in_force())
        except CallTimeout as late:
            raise CallTimeout(f"{late} ({deadline.origin()})", late.ran) from None
    if file.readable() and file.seekable():
        try:
            position = file.tell()
            if position != os.lseek(file.fileno(), 0, os.SEEK_CUR):
                # It has read ahead.  Only a seek from the end is sure to go past its buffer to the kernel; a fresh
                # reader is left alone, since the files of /proc have no end to seek from (EINVAL, seq_lseek()).
                file.seek(0, os.SEEK_END)
                file.seek(position)
        except OSError as error:
            raise ValueError(f"where the program is in the file: {error}") from error


def _target(number: int) -> str:
    """What /proc calls a descriptor.  F_GETPIPE_SZ would wait for whoever is writing to a pipe."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - pathlib is not imported, and this is no path
    except OSError:
        return ""


def describe(number: int) -> str:
    """What a descriptor is, in words; found out without anything that a file system's server could delay."""
    flags = lib.lx_fcntl(number, fcntl.F_GETFL, 0)
    value = ffi.new("int *")
    length = ffi.new("unsigned int *", ffi.sizeof("int"))
    if lib.lx_getsockopt(number, socket.SOL_SOCKET, socket.SO_TYPE, value, length) == 0:
        return f"a socket of type {socket.SocketKind(value[0]).name.removeprefix('SOCK_')}"
    access = {os.O_RDONLY: "reading only", os.O_WRONLY: "writing only"}.get(flags & os.O_ACCMODE, "both ways")
    kind = "a file"
    if flags & os.O_PATH:
        return "a mere path (O_PATH)"
    # O_TMPFILE, of a file that never had a name, contains O_DIRECTORY (open(2)).
    if flags & os.O_TMPFILE == os.O_DIRECTORY:
        return "a directory"
    target = _target(number)
    if target.startswith("pipe:"):
        kind = "a pipe"
    # A file of tmpfs has seals as well, and a path may begin like that.
    elif target.startswith("/memfd:") and lib.lx_fcntl(number, fcntl.F_GET_SEALS, 0) >= 0:
        kind = "a memfd"
    return f"{kind} open for {access}"


def open_received(descriptor: Descriptor, mode: str) -> Any:
    """A file object for a received descriptor, which then owns it.

    Raises:
        ArgumentError: it is not open for that, or no file.  The caller still owns the descriptor then.
    """
    number = descriptor.fileno()
    flags = lib.lx_fcntl(number, fcntl.F_GETFL, 0)
    if flags & os.O_PATH or flags & os.O_ACCMODE not in (os.O_RDWR, os.O_RDONLY if mode == "rb" else os.O_WRONLY):
        wanted = "reading" if mode == "rb" else "writing"
        raise ArgumentError(f"a file open for {wanted} is due; what came is {describe(number)}")
    try:
        return descriptor.open(mode)
    except OSError as error:
        raise ArgumentError(f"a file is due; what came is {describe(number)}: {error.strerror}") from None
