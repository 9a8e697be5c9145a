"""A process that confines itself, some time after its start."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from capmarshal._child import pausing, privileges
from capmarshal._child.confinement import Confinement, data_of
from capmarshal._child.own_folders import own_folders
from capmarshal._descriptors import reaper
from capmarshal._kernel.deadline import after, seconds_until
from capmarshal._kernel.errors import NotConfined

if TYPE_CHECKING:
    from capmarshal._descriptors.process import Served

# Seconds that calls in progress, and what is being closed, are waited for; and the kernel's last steps of a thread that
# has ended.
_PATIENCE, _LAST_STEPS = 5.0, 1.0
_PAUSE = 0.001


def confine(confinement: Confinement) -> None:
    """Confines this process, for good: from then on it does what ``confinement`` says, and no more.

    It keeps what it has open.  It has to have one thread, for Landlock binds no other: threads of the program's own are
    to end before.  Those of this package's end here, and others go on in their place: what threads serve of entrypoints
    and of streams pauses between two calls, for no longer than that takes.  What is to be imported from elsewhere than
    where Python is installed is named in ``read``.

    Args:
        confinement: what it may have.

    Raises:
        NotConfined: the kernel or the system lacks a part, or there are other threads, or an io_uring is open, or this
            process is confined, or maps about as much as ``memory`` already; or a call in progress has not ended within
            5 seconds, or :class:`timeout` if that is less.  Nothing was changed.
        TypeError: it is no confinement.
        ValueError: it has fewer threads than this process needs.
        OSError: a path is not there; nothing was changed.
        KernelError: a step was refused, and the process is bound by those before it: it should end.  Or, bound or not,
            it finds no thread for an entrypoint, which is closed, as its message says.
        MemoryError: libseccomp has none; nothing was changed.
    """
    # Imported when used: most processes confine none.
    from capmarshal._child.confining import confine_by, not_alone

    if not isinstance(confinement, Confinement):
        raise TypeError(f"confine() takes a Confinement, not {confinement!r}")
    if others := pausing.others():
        raise not_alone(others)
    _check_threads(confinement)
    deadline = after(_PATIENCE)
    # What is imported is, and the list of mounts is opened, while that can be.
    plan, (folders, packages) = data_of(confinement), own_folders()
    reaper.prepare()
    paused: list[Served] = []
    # Twice: a signal handler may raise something in the first.
    try:
        try:
            pausing.pause_all(paused, deadline)
            if not reaper.end_threads(max(seconds_until(deadline), 0)):
                words = "this process cannot be confined: what it has received is still being closed"
                raise NotConfined(errno.EBUSY, words)
            _wait_alone()
            # And one that closes what is received.
            confine_by(plan, packages, folders, threads=len(paused) + 1)
        finally:
            reaper.go_on()
            pausing.resume_all(paused)
    finally:
        reaper.go_on()
        pausing.resume_all(paused)


def _check_threads(confinement: Confinement) -> None:
    """Refuses what leaves no thread for what this process serves, and for closing what it receives.

    Raises:
        ValueError: so it is.
    """
    serving = len(pausing.served_in_threads())
    if serving and confinement.threads is not None and confinement.threads < (least := serving + 2):
        raise ValueError(
            f"threads={confinement.threads} are too few: this process serves in {serving} of its own, and needs {least}"
        )


def _wait_alone() -> None:
    """Until the kernel has ended threads that have ended."""
    deadline = time.monotonic() + _LAST_STEPS
    while not pausing.others() and privileges.threads() != 1 and time.monotonic() < deadline:
        time.sleep(_PAUSE)
