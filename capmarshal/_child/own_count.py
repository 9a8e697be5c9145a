"""How many threads this process may have, counted by themselves: in a user namespace of its own.

RLIMIT_NPROC is for all processes of a user.  From Linux 5.14 on it is for those of a user in a namespace
(kernel/ucount.c), and in one that is new there is this process alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from typing import Final, NoReturn

from capmarshal._child import resource_limits
from capmarshal._child.undisturbed import undisturbed
from capmarshal._descriptors.private import make_pair
from capmarshal._kernel.errors import KernelError
from capmarshal._kernel.native import lib

_CLONE_NEWUSER = 0x10000000
_COUNTED_APART: Final = (5, 14)
_MAP = "/proc/self/uid_map"
# Of what a child tells.
_WORDS_MAX = 4096


def _kernel() -> tuple[int, int]:
    """Its version; what follows the two numbers, as in "5.4-rc12", is not looked at."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _written(path: str, words: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is much to import for that
        file.write(words)


def why_not() -> str:
    """Why this process, which has one thread, can't have its threads counted by themselves; nothing where it can.

    Security modules let a namespace be made and refuse what comes next: so that is tried, by a child that ends with it.
    """
    if _kernel() < _COUNTED_APART:
        return f"Linux {os.uname().release} counts all of a user's processes (from 5.14 on those of a namespace)"
    try:
        with open(_MAP, encoding="ascii") as file:  # noqa: PTH123 - as above
            is_root = os.getuid() == 0 and file.readline().split()[:2] == ["0", "0"]
        writable = os.access(_MAP, os.W_OK)
    except OSError:
        is_root, writable = False, False
    if is_root:
        return "the kernel does not count root's"
    if not writable:
        return f"a namespace of its own can't be made without {_MAP}"
    if refused := _tried():
        return f"a user namespace of its own can't be made here: {refused}"
    return ""


def _tried() -> str:
    """What a child hears that does it; nothing also where no child can be had."""
    near, far = make_pair("trying a user namespace")
    # One of the two is the child's, too.
    with contextlib.closing(near), far.release() as told:
        # No signal handler is to have the child go on as a second of this process.
        with undisturbed():
            try:
                child = os.fork()
            except OSError:
                return ""
            if child == 0:
                _try(told.fileno())
        told.close()
        # By the socket: who collects all children may have this one.
        words = os.read(near.number, _WORDS_MAX)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
        return words.decode(errors="replace")


def _try(number: int) -> NoReturn:
    try:
        _enter()
    except OSError as error:
        os.write(number, str(error.strerror).encode() + (f": {error.filename}".encode() if error.filename else b""))
    finally:
        os._exit(0)


def _enter() -> None:
    """Makes the namespace, and has this process be in it as the user and group that it is.

    Raises:
        OSError: it is refused; perhaps when the process is there.
    """
    user, group = os.getuid(), os.getgid()
    if (result := lib.lx_unshare(_CLONE_NEWUSER)) < 0:
        raise OSError(-result, os.strerror(-result))
    _written("/proc/self/setgroups", "deny")
    _written(_MAP, f"{user} {user} 1")
    _written("/proc/self/gid_map", f"{group} {group} 1")


def bound_threads(most: int) -> None:
    """Has this process, which has one thread, have no more of them than that, for good.

    It sees its own user and group as before, and all others as nobody.  Where :func:`why_not` says nothing.

    Raises:
        KernelError: it is refused all the same, and this process is in that namespace, perhaps as nobody.
    """
    try:
        _enter()
    except OSError as error:
        words = f"making a user namespace of its own: {error.strerror}: {error.filename}"
        raise KernelError(error.errno or errno.EPERM, words) from error
    resource_limits.lower(resource.RLIMIT_NPROC, most, most)
