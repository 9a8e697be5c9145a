"""A process that confines itself, some time after its start."""

from __future__ import annotations

import errno
import threading
import time

from capmarshal._child import privileges
from capmarshal._child.confinement import Confinement, data_of
from capmarshal._child.own_folders import own_folders
from capmarshal._descriptors import reaper
from capmarshal._kernel.errors import NotConfined

# Seconds that what is being closed is waited for, and the kernel's last steps of a thread that has ended.
_PATIENCE, _LAST_STEPS = 5.0, 1.0
_PAUSE = 0.001


def confine(confinement: Confinement) -> None:
    """Confines this process, for good: from then on it does what ``confinement`` says, and no more.

    It keeps what it has open.  It has to have one thread: Landlock binds no other.  So threads of its own are to end
    before, and entrypoints that serve in threads to be left; those that close what was received are ended here, and
    begin again when they are needed.  What is to be imported from elsewhere than where Python is installed is named
    in ``read``.

    Args:
        confinement: what it may have.

    Raises:
        NotConfined: the kernel or the system lacks a part, or there are other threads, or an io_uring is open, or this
            process is confined; nothing was changed.
        TypeError: it is no confinement.
        OSError: a path is not there; nothing was changed.
        KernelError: a step was refused, and the process is bound by those before it: it should end.
    """
    # Imported when used: most processes confine none.
    from capmarshal._child.confining import confine_by

    if not isinstance(confinement, Confinement):
        raise TypeError(f"confine() takes a Confinement, not {confinement!r}")
    # The list of mounts besides, which can't be opened any more.
    reaper.prepare()
    if not reaper.end_threads(_PATIENCE):
        raise NotConfined(errno.EBUSY, "this process cannot be confined: what it has received is still being closed")
    _wait_alone()
    folders, packages = own_folders()
    confine_by(data_of(confinement), packages, folders)


def _wait_alone() -> None:
    """Until the kernel has ended threads that have ended."""
    deadline = time.monotonic() + _LAST_STEPS
    while threading.active_count() == 1 and privileges.threads() != 1 and time.monotonic() < deadline:
        time.sleep(_PAUSE)
