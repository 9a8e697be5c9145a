"""Which descriptors the kernel does not send, told when it has refused some: its error names none."""

from __future__ import annotations

import errno
import fcntl
from typing import TYPE_CHECKING, Final, NamedTuple

from capmarshal._descriptors.descriptor import name_in_proc
from capmarshal._kernel.native import lib

if TYPE_CHECKING:
    from collections.abc import Sequence

# What sendmsg(2) says of such (scm_fp_copy() in net/core/scm.c).
REFUSALS: Final = (errno.EBADF, errno.EINVAL)


class Refused(NamedTuple):
    """A descriptor that cannot be sent.

    Attributes:
        number: of it.
        why: what it is, in words.
    """

    number: int
    why: str


def refused_of(numbers: Sequence[int]) -> Refused | None:
    """The first of some descriptors that the kernel does not send; None if it sends them all."""
    for number in numbers:
        if lib.lx_fcntl(number, fcntl.F_GETFD, 0) == -errno.EBADF:
            return Refused(number, "not open: somebody has closed it in the meantime")
        if name_in_proc(number) == "anon_inode:[io_uring]":
            return Refused(number, "an io_uring, which the kernel sends to nobody")
    return None
