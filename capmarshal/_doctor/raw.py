"""System calls that the package itself makes nowhere, by their numbers."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Final

from capmarshal._doctor.probe import Lacking

if TYPE_CHECKING:
    import ctypes

# On x86-64 and on aarch64: asm/unistd_64.h, asm-generic/unistd.h.
_NUMBERS: Final = {"userfaultfd": (323, 282), "io_uring_setup": (425, 425), "pidfd_getfd": (438, 438)}
_MACHINES: Final = {"x86_64": 0, "aarch64": 1}


def made(call: str, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    """What a system call returns, which is no error.

    Raises:
        OSError: it is one.
        Lacking: nobody knows its number here.
    """
    # Not every Python has it.
    import ctypes

    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise Lacking(f"its number is not known on {platform.machine()}")
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = syscall(ctypes.c_long(_NUMBERS[call][machine]), *given)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
