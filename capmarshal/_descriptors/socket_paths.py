"""Sockets that have a place in the file system: what is said to be a path, and the address that it makes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from capmarshal._descriptors import private
from capmarshal._kernel.errors import KernelError, check
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

# What open() takes for a path; so called in typeshed.
StrOrBytesPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

# sun_path has 108 bytes, the last of which is to be zero (unix(7)).
ADDRESS_MAX = 107

_DESCRIPTORS = "/proc/self/fd"
_CREDENTIALS = struct.Struct("=iII")


class Credentials(NamedTuple):
    """Who is at the other end of a connection, as the kernel tells (SO_PEERCRED): who connected, or who listened."""

    pid: int
    uid: int
    gid: int


def checked_path(path: StrOrBytesPath) -> bytes:
    """The bytes of a path.

    Raises:
        TypeError: it is none.
        ValueError: it names no file.
    """
    try:
        named = os.fsencode(path)
    except TypeError:
        raise TypeError(f"a path is text, bytes, or a pathlib.Path, not {path!r}") from None
    if named[:1] == b"\0":
        raise ValueError(
            f"{path!r} is an abstract name, which has no permissions, so that anybody may connect: name a file"
        )
    if not named or b"\0" in named:
        raise ValueError(f"{path!r} is no path of a file")
    if named.endswith(b"/"):
        raise ValueError(f"{path!r} is the path of a directory: name a file in it")
    return named


def words_for(path: bytes) -> str:
    """A path, in the text of an error."""
    return repr(os.fsdecode(path))


def _address(path: bytes) -> bytes:
    return struct.pack("=H", socket.AF_UNIX) + path + b"\0"


def _check_proc(path: bytes) -> None:
    """Refuses to go by way of a descriptor where that cannot be named.

    Raises:
        KernelError: it cannot.
    """
    if not os.path.isdir(_DESCRIPTORS):  # noqa: PTH112 - pathlib is slow to import
        raise KernelError(
            errno.ENAMETOOLONG,
            f"{words_for(path)}: the path of a socket has {ADDRESS_MAX} bytes at most, and a longer one takes /proc, "
            "which is not mounted here",
        )


@contextlib.contextmanager
def _opened(path: bytes, flags: int) -> Iterator[int]:
    """A descriptor that stands for a file or directory, and neither reads nor writes it (O_PATH, open(2))."""
    _check_proc(path)
    with contextlib.closing(private.make_file(path, os.O_PATH | flags, 0, f"looking for {words_for(path)}")) as way:
        yield way.number


def _by(descriptor: int) -> bytes:
    """A short path of what a descriptor stands for."""
    return f"{_DESCRIPTORS}/{descriptor}".encode()


@contextlib.contextmanager
def address_to_connect(path: bytes) -> Iterator[bytes]:
    """The address of a socket that is there, good as long as the block lasts, however long the path is.

    Raises:
        KernelError: nothing is there, or a long path cannot be used here.
    """
    if len(path) <= ADDRESS_MAX:
        yield _address(path)
    else:
        with _opened(path, 0) as file:
            yield _address(_by(file))


@contextlib.contextmanager
def address_to_bind(path: bytes) -> Iterator[bytes]:
    """The address of a socket that is yet to be there, likewise.

    Raises:
        KernelError: there is no such directory, or a long path cannot be used here.
        ValueError: the file's own name is too long.
    """
    if len(path) <= ADDRESS_MAX:
        yield _address(path)
        return
    directory, name = os.path.split(path)
    with _opened(directory or b".", os.O_DIRECTORY) as opened:
        short = _by(opened)
        room = ADDRESS_MAX - len(short) - 1
        if len(name) > room:
            most = f"in a path as long as this, the name of the file has {room} bytes at most"
            raise ValueError(f"{words_for(path)}: {most}")
        yield _address(short + b"/" + name)


def change_mode(path: bytes, mode: int) -> None:
    """Gives a socket's file a mode, and whatever else may have come to stand there none.

    Raises:
        OSError: it can't be done.
    """
    with _opened(path, os.O_NOFOLLOW) as file:
        if stat.S_ISSOCK(os.fstat(file).st_mode):
            # By its path, it might be another by now.
            os.chmod(_by(file), mode)  # noqa: PTH101 - pathlib is slow to import


def credentials_of(number: int) -> Credentials:
    """Who is at the other end of a connection.

    Raises:
        KernelError: the kernel does not say.
    """
    room, length = ffi.new("char[]", _CREDENTIALS.size), ffi.new("unsigned int *", _CREDENTIALS.size)
    check(
        lib.lx_getsockopt(number, socket.SOL_SOCKET, socket.SO_PEERCRED, room, length), "asking who is at the other end"
    )
    return Credentials(*_CREDENTIALS.unpack(ffi.buffer(room)[:]))
