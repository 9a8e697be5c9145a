"""How many threads this process may have, counted by themselves: in a user namespace of its own.

RLIMIT_NPROC is for all processes of a user.  From Linux 5.14 on it is for those of a user in a namespace
(kernel/ucount.c), and in one that is new there is this process alone.
"""

from __future__ import annotations

import os
import resource
from typing import Final

from capmarshal._child import resource_limits
from capmarshal._kernel.native import lib

_CLONE_NEWUSER = 0x10000000
_COUNTED_APART: Final = (5, 14)
_MAP = "/proc/self/uid_map"


def _kernel() -> tuple[int, int]:
    """Its version."""
    first, second, *_ = (*os.uname().release.split("."), "0")
    digits = "".join(each for each in second if each.isdecimal())
    return (int(first), int(digits or 0)) if first.isdecimal() else (0, 0)


def _written(path: str, words: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is much to import for that
        file.write(words)


def bound_threads(most: int) -> str:
    """Has this process, which has one thread, have no more of them than that, for good.

    It sees its own user and group as before, and all others as nobody.

    Returns:
        Nothing; or why it can't be, and nothing was changed.

    Raises:
        OSError: something is in between.
    """
    if _kernel() < _COUNTED_APART:
        return f"Linux {os.uname().release} counts all of a user's processes (from 5.14 on those of a namespace)"
    user, group = os.getuid(), os.getgid()
    try:
        with open(_MAP, encoding="ascii") as file:  # noqa: PTH123 - as above
            is_root = user == 0 and file.readline().split()[:2] == ["0", "0"]
        writable = os.access(_MAP, os.W_OK)
    except OSError:
        is_root, writable = False, False
    if is_root:
        return "the kernel does not count root's"
    if not writable:
        return f"a namespace of its own can't be made without {_MAP}"
    if (result := lib.lx_unshare(_CLONE_NEWUSER)) < 0:
        return f"a user namespace of its own can't be made here: {os.strerror(-result)}"
    _written("/proc/self/setgroups", "deny")
    _written(_MAP, f"{user} {user} 1")
    _written("/proc/self/gid_map", f"{group} {group} 1")
    resource_limits.lower(resource.RLIMIT_NPROC, most, most)
    return ""
