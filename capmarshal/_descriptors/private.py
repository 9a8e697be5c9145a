"""Descriptors that a forked child must not keep, and the lock that is held across every fork.

A child that keeps a server's end of a socket keeps that server's clients waiting after the server's death; one
that keeps a client's channel shares its conversation.  So whoever makes such a descriptor makes it and wraps it
in a :class:`Private` under :data:`lock`, which ``os.fork()`` takes too: no fork falls in between.

The child closes its epoll descriptors first, and calls no epoll_ctl: deleting from an epoll set that it shares
with its parent would remove the *parent's* registration.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from capmarshal._kernel.native import lib

if TYPE_CHECKING:
    from collections.abc import Callable

# Re-entrant: a signal handler may call while its thread holds it.  Nobody waits for anything while holding it: no
# other lock, no log, no socket.
lock = threading.RLock()

_all: set[Private] = set()
_in_child: list[Callable[[], None]] = []


class Private:
    """Owns a descriptor that is this process's alone.

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
        _all.add(self)

    def fileno(self) -> int:
        """The descriptor, borrowed; -1 once it is closed."""
        return self.number

    def close(self) -> None:
        """Closes it.  Does nothing the second time, nor in a child.

        Takes no lock: garbage collection may call this anywhere, and closing what a stranger sent can block.  A child
        that is forked between the first two lines keeps a copy of a socket that is being given up anyway.
        """
        number, self.number = self.number, -1
        if number >= 0:
            lib.lx_close(number)
            _all.discard(self)


def run_in_child(forget: Callable[[], None]) -> None:
    """Has ``forget`` called in every forked child, once the private descriptors are closed."""
    _in_child.append(forget)


def _after_fork_in_child() -> None:
    for private in sorted(_all, key=lambda private: not private.epoll):
        number, private.number = private.number, -1
        if number >= 0:
            lib.lx_close(number)
    _all.clear()
    for forget in _in_child:
        forget()
    lock.release()


os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=_after_fork_in_child)
