"""What the kernel lets other processes of this user do: here it is well where it is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from capmarshal._doctor import raw, reasons, system
from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

_GROUP: Final = "neighbours"

# struct io_uring_params of include/uapi/linux/io_uring.h.
_PARAMETERS_SIZE: Final = 120
_AS_ROOT: Final = "ask as an ordinary user: root may do more"


def _refused(try_it: Callable[[], int], switch: str, off: str, else_: str) -> str:
    """That it is refused, and as what; raises Lacking where it is not.

    Args:
        try_it: makes a descriptor.
        switch: the sysctl that switches it off.
        off: by that value; root may have it all the same.
        else_: what helps where there is no such switch.
    """
    value = system.sysctl(switch)
    told = "" if value is None else f" ({switch} = {value})"
    try:
        os.close(try_it())
    except OSError as error:
        return f"refused: {reasons.words(error)}{told}"
    mend = else_ if value is None else f"`sysctl -w {switch}={off}`"
    raise Lacking(f"allowed{told}", mend=_AS_ROOT if system.is_root() else mend)


def faults() -> str:
    """Who maps memory may have it come when he likes."""
    return _refused(
        lambda: raw.made("userfaultfd", os.O_CLOEXEC | os.O_NONBLOCK), "vm.unprivileged_userfaultfd", "0", ""
    )


def rings() -> str:
    """Requests to the kernel that no filter sees."""
    # Not every Python has it.
    import ctypes

    parameters = ctypes.create_string_buffer(_PARAMETERS_SIZE)
    return _refused(lambda: raw.made("io_uring_setup", 1, parameters), "kernel.io_uring_disabled", "2", "a filter")


def taking() -> str:
    """A process takes a descriptor out of another one, which is not its child."""
    other = os.getppid()

    def take() -> int:
        pidfd = os.pidfd_open(other)
        try:
            return raw.made("pidfd_getfd", pidfd, 2, 0)
        finally:
            os.close(pidfd)

    return _refused(take, "kernel.yama.ptrace_scope", "1", "another user for each of them")


PROBES: Final = (
    Probe(
        _GROUP,
        "userfaultfd",
        faults,
        Level.NOTE,
        "whoever has the same memory, as a cm.SharedBuffer, or writes to a pipe that is read here, can have the reader "
        "wait; closing is done where that keeps nobody; a confined process can't",
    ),
    Probe(
        _GROUP,
        "io_uring",
        rings,
        Level.NOTE,
        "filters of yours are to refuse it, for none sees its requests; cm.confine() refuses where one is open, as in "
        "a loop of uvloop's; a confined process has none",
    ),
    Probe(
        _GROUP,
        "taking descriptors",
        taking,
        Level.NOTE,
        "whatever runs unconfined as this user takes the capabilities of this user's other processes: what you don't "
        "trust, run confined or as another user",
    ),
)
