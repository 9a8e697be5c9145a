"""What a process gives up before it is confined, and whether it can be: it has one thread."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import Final

from capmarshal._descriptors.descriptor import name_in_proc
from capmarshal._kernel.errors import check
from capmarshal._kernel.native import lib

# include/uapi/linux/sched.h, prctl.h, capability.h.
_CLONE_THREAD = 0x00010000
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_VERSION_3, _WORDS = 0x20080522, 6
_TASKS = "/proc/self/task"
_RING = b"anon_inode:[io_uring]"
# OOM_SCORE_ADJ_MAX of include/uapi/linux/oom.h.
_FIRST_TO_GO = 1000

# Something, once a filter has this process start no other.
starts_none: Final[list[bool]] = []


def threads() -> int | None:
    """How many this process has: 1, or more, 2 where they can't be counted; None where nobody tells.

    Python's own list does not have those of libraries.
    """
    try:
        return len(os.listdir(_TASKS))  # noqa: PTH208 - pathlib is much to import for that
    except OSError:
        # Landlock lets that be asked: two more than there are threads, proc_task_getattr() in fs/proc/base.c.
        with contextlib.suppress(OSError):
            if (count := os.stat(_TASKS).st_nlink - 2) > 0:  # noqa: PTH116 - as above
                return count
        # Does nothing where there is no other, and fails where there is: check_unshare_flags() in kernel/fork.c.
        return {0: 1, -errno.EINVAL: 2}.get(lib.lx_unshare(_CLONE_THREAD))


def ring() -> str:
    """An io_uring that there is: a filter sees none of its requests, and the kernel may take them without a call.

    Closed, one that is mapped goes on.  Empty where there is none, and where /proc is not mounted.
    """
    try:
        numbers = os.listdir("/proc/self/fd")  # noqa: PTH208 - as above
        with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123 - as above
            mapped = any(_RING in line for line in maps)
    except OSError:
        return ""
    number = next((each for each in numbers if os.fsencode(name_in_proc(int(each))) == _RING), None)
    if number is None:
        return "an io_uring is mapped" if mapped else ""
    return f"descriptor {number} is an io_uring"


def be_expendable() -> None:
    """Has the kernel end this process before others where the machine has no memory left."""
    # Not everywhere is it to be written.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123
        score.write(str(_FIRST_TO_GO))


def leave_no_core() -> None:
    """Has the kernel dump no core of this process: RLIMIT_CORE is not asked where a program is given it, core(5).

    Nor does another process of its user's look into it then.

    Raises:
        KernelError: a filter refuses that.
    """
    check(lib.lx_prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "giving up core dumps", "prctl(2)")


def give_up() -> None:
    """Gives up all capabilities, and that any program could give new ones, for good.

    Raises:
        KernelError: a filter refuses that.
    """
    check(lib.lx_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new privileges", "prctl(2)")
    header = struct.pack("=Ii", _VERSION_3, 0)
    check(lib.lx_capset(header, bytes(4 * _WORDS)), "giving up capabilities", "capset(2)")
