"""Why something was refused, and what helps against that."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from capmarshal._kernel.errors import DENIED, KernelError
from capmarshal._kernel.native import lib

if TYPE_CHECKING:
    from capmarshal._doctor.probe import Probe

# include/uapi/linux/prctl.h; 2 is a filter's mode: seccomp.h.
_PR_GET_SECCOMP, _FILTERED = 21, 2
FULL: Final = (errno.EMFILE, errno.ENFILE)
# No such call, no such option, no such command of a call that there is.
_UNKNOWN: Final = (errno.ENOSYS, errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP)


# What is said of a table that has no room, one's own or the machine's.
MORE_DESCRIPTORS: Final = "close what is open, or `ulimit -n 4096`"


def filtered() -> bool:
    """Whether a filter looks at this process's system calls; also where one does not let that be asked."""
    mode = lib.lx_prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)
    return mode == _FILTERED or -mode in (errno.EPERM, errno.EACCES, errno.ENOSYS)


def words(error: OSError) -> str:
    """What an error says: the package's own does in its words, all others by the name of their number, too."""
    if isinstance(error, KernelError) and error.strerror:
        return error.strerror
    if error.errno is None:
        return str(error)
    name = errno.errorcode.get(error.errno, str(error.errno))
    return f"{os.strerror(error.errno)} ({name})"


def checked(result: int) -> int:
    """What a function of ``lx_`` returned, which is no error.

    Raises:
        OSError: it is one, and nothing is said but which.
    """
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def mend(error: OSError, probe: Probe) -> str:
    """What helps against that."""
    if error.errno in FULL:
        return MORE_DESCRIPTORS
    if error.errno in DENIED and probe.call and filtered():
        return allow(probe.call)
    if error.errno in _UNKNOWN and probe.since:
        return f"Linux {probe.since} or later"
    return probe.mend or (f"Linux {probe.since} or later" if probe.since else "")


def allow(call: str) -> str:
    """How a filter is told to let a system call pass."""
    names = call.replace(", ", " ")
    return (
        f"have the filter allow {call}: `docker run --security-opt seccomp=PROFILE.json`, or in a unit "
        f"`SystemCallFilter={names}`"
    )
