"""Received descriptors: told apart, and made files and sockets."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.closing import asks_nobody, type_of_file
from capmarshal._descriptors.descriptor import name_in_proc
from capmarshal._descriptors.foreign import ForeignFile
from capmarshal._kernel.errors import ArgumentError
from capmarshal._kernel.native import lib

if TYPE_CHECKING:
    from capmarshal._descriptors.descriptor import Descriptor


def describe(number: int) -> str:
    """What a descriptor is, in words; found out without anything that a file system's server could delay."""
    flags = lib.lx_fcntl(number, fcntl.F_GETFL, 0)
    # Before its bits are looked at: of a negative number most are set.
    if flags < 0:
        return "a descriptor that is closed"
    kind_of_socket = lib.cm_socket_option(number, socket.SO_TYPE)
    if kind_of_socket >= 0:
        return f"a socket of type {socket.SocketKind(kind_of_socket).name.removeprefix('SOCK_')}"
    if type_of_file(number) == stat.S_IFSOCK:
        return f"a socket that may not be asked of what type it is (getsockopt(2): {os.strerror(-kind_of_socket)})"
    access = {os.O_RDONLY: "reading only", os.O_WRONLY: "writing only"}.get(flags & os.O_ACCMODE, "both ways")
    kind = "a file"
    if flags & os.O_PATH:
        return "a mere path (O_PATH)"
    if type_of_file(number) == stat.S_IFDIR:
        return "a directory"
    # Not by F_GETPIPE_SZ, which would wait for whoever is writing to a pipe.
    target = name_in_proc(number)
    if target.startswith("pipe:"):
        kind = "a pipe"
    # A file of tmpfs has seals as well, and a path may begin like that.
    elif target.startswith("/memfd:") and lib.lx_fcntl(number, fcntl.F_GET_SEALS, 0) >= 0:
        kind = "a memfd"
    return f"{kind} open for {access}"


def _asks_nobody(number: int) -> bool:
    """Whether fstat(2) waits for nobody: a file of this machine's own, a socket, a pipe that has no path."""
    return (
        asks_nobody(number)
        or type_of_file(number) == stat.S_IFSOCK
        # A path begins with "/": a FIFO that has one is where its server has put it.
        or name_in_proc(number).startswith("pipe:")
    )


def _untouched(descriptor: Descriptor, mode: str) -> io.BufferedReader | io.BufferedWriter:
    """A file object of which nothing is asked until it is used."""
    if type_of_file(descriptor.fileno()) == stat.S_IFDIR:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    raw = ForeignFile(descriptor, mode)
    return io.BufferedReader(raw) if mode == "rb" else io.BufferedWriter(raw)


def open_received(descriptor: Descriptor, mode: str) -> Any:
    """A file object for a received descriptor, which then owns it.

    Raises:
        ArgumentError: it is not open for that, or no file.  The caller still owns the descriptor then.
    """
    number = descriptor.fileno()
    flags = lib.lx_fcntl(number, fcntl.F_GETFL, 0)
    open_for = (os.O_RDWR, os.O_RDONLY if mode == "rb" else os.O_WRONLY)
    if flags < 0 or flags & os.O_PATH or flags & os.O_ACCMODE not in open_for:
        wanted = "reading" if mode == "rb" else "writing"
        raise ArgumentError(f"a file open for {wanted} is due; what came is {describe(number)}")
    try:
        return descriptor.open(mode) if _asks_nobody(number) else _untouched(descriptor, mode)
    except OSError as error:
        words = describe(number)
        if error.errno != errno.EISDIR:
            words += f": {error.strerror}"
        raise ArgumentError(f"a file is due; what came is {words}") from None
