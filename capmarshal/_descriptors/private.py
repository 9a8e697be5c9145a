"""Descriptors that a forked child must not keep."""

from __future__ import annotations

import sys

from capmarshal._descriptors.process import process
from capmarshal._kernel.native import lib

lock = process.lock


class Private:
    """Owns a descriptor that is this process's alone.

    One that is forgotten is closed.

    Args:
        number: the descriptor, taken; the caller holds :data:`lock` since before it was made.
        epoll: it is an epoll descriptor, which a child closes before all others.

    Attributes:
        number: the descriptor, or -1 once it is closed, here or by a fork.
    """

    __slots__ = ("__weakref__", "epoll", "number")

    def __init__(self, number: int, *, epoll: bool = False) -> None:
        self.number = number
        self.epoll = epoll
        process.privates.add(self)

    def fileno(self) -> int:
        """The descriptor, borrowed; -1 once it is closed."""
        return self.number

    def close(self) -> None:
        """Closes it.  Does nothing the second time, nor in a child.

        The last close of a socket can block, so it holds no lock meanwhile: a child that is forked just then knows it
        by its cookie.  What is no socket does not block.
        """
        cookie = lib.cm_cookie(self.number)
        if cookie == 0:
            with process.lock:
                # No call between these two: Ctrl-C raises where one ends.
                number, self.number = self.number, -1
                lib.lx_close(number)
            return
        try:
            process.closing[cookie] = self.number
            number, self.number = self.number, -1
            lib.lx_close(number)
        finally:
            process.closing.pop(cookie, None)

    def in_child(self) -> None:
        """Closes the child's copy."""
        number, self.number = self.number, -1
        lib.lx_close(number)

    def __del__(self) -> None:
        # At the end of the interpreter, what the reaper is needed for is gone, and the kernel closes all in a moment.
        if getattr(self, "number", -1) < 0 or process.reaper is None or sys.is_finalizing():
            return
        # Another object: this one is gone for good, and may be seen by the finalizers of others in the same cycle.
        heir = Private(-1, epoll=self.epoll)
        heir.number, self.number = self.number, -1
        process.reaper.close([heir])
