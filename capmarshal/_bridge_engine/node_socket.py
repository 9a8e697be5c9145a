"""The socket of a connection to a node, which is its process's alone: a forked child keeps none of it."""

from __future__ import annotations

import os

from capmarshal._descriptors.process import identity_of, process


class NodeSocket:
    """One, which the event loop owns: kept by whoever wants it to be no child's."""

    epoll = False

    def __init__(self, number: int) -> None:
        """That has this number, borrowed."""
        self._number = number
        self._identity = identity_of(number)
        with process.lock:
            process.privates.add(self)

    def in_child(self) -> None:
        """Ends the child's copy: as long as one is open, a node, and who is asked for by it, take it for alive.

        What looks at the number in the child is the copy of an event loop that does not run there.  It may yet close
        it: so it stays taken, by what is of no use.
        """
        if identity_of(self._number) != self._identity:
            # The event loop has closed it, and the number is anybody's.
            return
        try:
            idle = os.memfd_create("capmarshal", os.MFD_CLOEXEC)
        except OSError:
            # The table is full.
            os.close(self._number)
            return
        os.dup2(idle, self._number, inheritable=False)
        os.close(idle)
