"""Landlock: from then on this process opens only what lies beneath the paths that were named.

landlock(7), include/uapi/linux/landlock.h.  It takes nothing back of what is open already, names and metadata stay
visible, and what has no place in the file system (memfds, pipes) it lets be opened again through ``/proc``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import sys
import sysconfig
from typing import TYPE_CHECKING, Final

from capmarshal._descriptors.moving import for_a_block, opened
from capmarshal._kernel.errors import KernelError, check
from capmarshal._kernel.native import NULL, lib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from capmarshal._kernel.native import CData

_CREATE_RULESET_VERSION = 1
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(1, 6))
_MAKE_DIR, _MAKE_REG, _REFER, _TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14

# What is refused beneath no path that was named, by version: 13 rights of files in the first, then REFER, TRUNCATE, and
# IOCTL_DEV in the fifth.
_RIGHTS_OF_FILES = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, 1 << 15))
# Binding and connecting of TCP, in the fourth.
_RIGHTS_OF_NETS = 3
# Abstract sockets, and signals, of who is not in this domain.
_SCOPES = 3

# LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF: what this process is refused is no line of the system's audit log, which it
# would fill.
_UNLOGGED = 1

# Versions from which on there are these.
TRUNCATE: Final = 3
_NETS = 4
SCOPES: Final = 6
_LOGS = 7

# What of a right has a meaning for what is no directory.
_OF_A_FILE = _WRITE_FILE | _READ_FILE | _TRUNCATE

READ: Final = _READ_FILE | _READ_DIR
# No device, socket, FIFO or symbolic link: the last would lead whoever follows it out of the directory.
WRITE: Final = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE

# Libraries of the system's, and what the C library and Python's read where it is there.
_SYSTEM = (
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/dev/urandom",
    "/dev/zero",
)
_DEVICE = "/dev/null"


def version() -> int:
    """Of the kernel's Landlock; 0 where there is none, or it is not to be had."""
    return max(lib.lx_landlock_create_ruleset(NULL, 0, _CREATE_RULESET_VERSION), 0)


def always_readable() -> list[str]:
    """What Python needs to import what is installed with it, and numpy: library folders, and few files."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        # Not all of it: of /usr/local, there is more than libraries.
        paths += [f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/pyvenv.cfg"]
    # The platform module looks into the interpreter.
    return [*dict.fromkeys(paths), sys.executable, *_SYSTEM]


def _rights_of_files(abi: int) -> int:
    return sum(rights for since, rights in _RIGHTS_OF_FILES if abi >= since)


class Ruleset:
    """What may be opened.

    Args:
        number: its descriptor, borrowed.
        abi: the version.
    """

    def __init__(self, number: int, abi: int) -> None:
        self._number = number
        self._rights = _rights_of_files(abi)
        self._how = _UNLOGGED if abi >= _LOGS else 0

    def allow(self, path: str, rights: int) -> None:
        """Allows that beneath a path.

        Raises:
            OSError: there is no such path, or it cannot be looked up.
        """
        with opened(path, os.O_PATH) as number:
            rights &= self._rights
            if not stat.S_ISDIR(os.fstat(number).st_mode):
                rights &= _OF_A_FILE
            rule = struct.pack("=Qi", rights, number)
            result = lib.lx_landlock_add_rule(self._number, _PATH_BENEATH, rule, 0)
            check(result, f"allowing {path!r}, by Landlock", "landlock_add_rule(2)")

    def allow_where_there(self, paths: Iterable[str], rights: int) -> None:
        """Allows it beneath those that there are."""
        for path in paths:
            try:
                self.allow(path, rights)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue

    def put_on(self) -> None:
        """Binds this process, which has one thread, for good.

        Raises:
            KernelError: it is bound 16 times already, or a filter refuses it.
        """
        result = lib.lx_landlock_restrict_self(self._number, self._how)
        if result == -errno.E2BIG:
            raise KernelError(errno.E2BIG, "Landlock binds a process 16 times at most, and so often it was bound here")
        check(result, "binding this process by Landlock", "landlock_restrict_self(2)")


@contextlib.contextmanager
def ruleset(
    abi: int, read: Iterable[str], write: Iterable[str], also_read: Iterable[str], listed: Iterable[str]
) -> Iterator[Ruleset]:
    """What opens nothing but what Python needs, and what is named; for a block, after which what is put on stays.

    Args:
        abi: the version.
        read: paths beneath which files may be read.
        write: those beneath which they may be written, too.
        also_read: more of the first; those that are not there are passed over.
        listed: directories whose names may be listed, likewise.

    Raises:
        OSError: there is no such path.
        KernelError: there is no room for it, or a filter refuses it.
    """
    nets = _RIGHTS_OF_NETS if abi >= _NETS else 0
    attributes = struct.pack("=QQQ", _rights_of_files(abi), nets, _SCOPES if abi >= SCOPES else 0)

    def make(place: CData) -> int:
        return lib.cm_make_ruleset(place, attributes, len(attributes))

    with for_a_block(make, "making a ruleset of Landlock's") as number:
        made = Ruleset(number, abi)
        made.allow_where_there([*always_readable(), *also_read], READ)
        made.allow_where_there(listed, _READ_DIR)
        made.allow_where_there([_DEVICE], READ | _WRITE_FILE)
        for name, paths, rights in (("read", read, READ), ("write", write, WRITE)):
            for path in paths:
                try:
                    made.allow(path, rights)
                except OSError as error:
                    if error.filename is not None:
                        error.strerror = f"{error.strerror}, in Confinement({name}=...)"
                    raise
        yield made
