"""Received descriptors: told apart, and made files and sockets."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.descriptor import name_in_proc
from capmarshal._kernel.errors import ArgumentError
from capmarshal._kernel.native import lib

if TYPE_CHECKING:
    from capmarshal._descriptors.descriptor import Descriptor


def describe(number: int) -> str:
    """What a descriptor is, in words; found out without anything that a file system's server could delay."""
    flags = lib.lx_fcntl(number, fcntl.F_GETFL, 0)
    kind_of_socket = lib.cm_socket_option(number, socket.SO_TYPE)
    if kind_of_socket >= 0:
        return f"a socket of type {socket.SocketKind(kind_of_socket).name.removeprefix('SOCK_')}"
    access = {os.O_RDONLY: "reading only", os.O_WRONLY: "writing only"}.get(flags & os.O_ACCMODE, "both ways")
    kind = "a file"
    if flags & os.O_PATH:
        return "a mere path (O_PATH)"
    # O_TMPFILE, of a file that never had a name, contains O_DIRECTORY (open(2)).
    if flags & os.O_TMPFILE == os.O_DIRECTORY:
        return "a directory"
    # Not by F_GETPIPE_SZ, which would wait for whoever is writing to a pipe.
    target = name_in_proc(number)
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
