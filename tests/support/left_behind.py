"""Which descriptors a process has open that may not look into ``/proc``."""

from __future__ import annotations

import contextlib
import fcntl

import awaiting


def open_numbers():
    """The numbers that are open, in this process or a forked one.

    Asks for each number in turn: it needs no descriptor of its own, and no /proc, which an ordinary user's process
    may not read once it has changed user.
    """
    awaiting.collect()
    found = set()
    for number in range(2048):
        with contextlib.suppress(OSError):
            fcntl.fcntl(number, fcntl.F_GETFD)
            found.add(number)
    return found
