"""What a process has but once, and what becomes of it in a forked child: one object, one routine.

A child that keeps a server's end of a socket keeps that server's clients waiting after the server's death; one that
keeps a client's channel shares its conversation.  So whoever makes such a descriptor makes it and wraps it in a
:class:`~capmarshal._descriptors.private.Private` under :data:`Process.lock`, which ``os.fork()`` takes too: no fork
falls in between.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from capmarshal._kernel.native import lib
from capmarshal._kernel.waiting import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._kernel.waiting import Steps


class Inherited(Protocol):
    """What has something to do in a forked child."""

    def in_child(self) -> None:
        """Becomes what it is to be in a child that has just been forked, where no other thread runs."""
        ...


class PrivateDescriptor(Inherited, Protocol):
    """A descriptor that a child closes."""

    epoll: bool
    """It is an epoll descriptor."""


class Closer(Inherited, Protocol):
    """Closes descriptors, those of strangers too, and never waits for any of them."""

    def close(self, things: Sequence[Any]) -> bool:
        """Takes them; whether all are closed already."""
        ...

    def before_fork(self) -> None:
        """Notes what it is closing, which a child may have open without knowing that."""
        ...

    def after_fork(self) -> None:
        """Forgets that, in the parent."""
        ...

    def with_room(self, make: Callable[[], int]) -> Steps[int]:
        """What ``make`` returns; it is called again where the table was full, and something has been closed since.

        What nobody uses is given up for it: :meth:`Process.give_way`.
        """
        ...


class Served(Inherited, Protocol):
    """Serves, perhaps by a thread of its own."""

    @property
    def thread(self) -> threading.Thread | None:
        """That thread, if there is one."""
        ...

    @property
    def doing(self) -> str:
        """What it does, for people."""
        ...

    def check_may_pause(self) -> None:
        """Raises NotConfined where it would wait for itself."""
        ...

    def pause(self, deadline: int) -> bool:
        """Has its thread end between two calls, until it resumes; whether it has by the deadline."""
        ...

    def resume(self) -> None:
        """Goes on in another thread."""
        ...


def identity_of(number: int) -> int:
    """What tells a socket from the next one with its number; 0 for what is no socket.

    The cookie, which is never used again; where a filter refuses to tell it, the inode, negative, which is used again
    after four thousand million others.
    """
    return lib.cm_cookie(number) or -lib.cm_socket_inode(number)


class Yielding(Inherited, Protocol):
    """Has descriptors that nobody uses at the moment."""

    def give_way(self) -> None:
        """Has the reaper close them: somebody needs room."""
        ...


class Process:
    """All that this process has but once.  The upper layers put in what is theirs.

    Attributes:
        lock: held across every fork.  Re-entrant: a signal handler may call while its thread holds it.  Nobody waits
            for anything while holding it: no other lock, no log, no socket.
        privates: the descriptors that a child must not keep.
        closing: those of them that are sockets, by :func:`identity_of`, and are being closed: forgotten, and perhaps
            still open.
        lists: those that a thread is closing just now, of which a child finds some open.
        reaper: closes what may block.
        mounts: knows which files cannot block when they are closed.
        space: the capability space.
        entrypoints: those that are served here.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.privates: weakref.WeakSet[PrivateDescriptor] = weakref.WeakSet()
        self.closing: dict[int, int] = {}
        self.lists: dict[int, object] = {}
        self.reaper: Closer | None = None
        self.mounts: Inherited | None = None
        self.space: Yielding | None = None
        self.entrypoints: weakref.WeakSet[Served] = weakref.WeakSet()

    def give_way(self) -> None:
        """Has what nobody uses at the moment closed: there is no room for something else."""
        if self.space is not None:
            self.space.give_way()

    def with_room(self, make: Callable[[], int]) -> Steps[int]:
        """As :meth:`Closer.with_room`; not while holding the lock, for it may wait a second."""
        if self.reaper is None:
            return make()
        return (yield from self.reaper.with_room(make))

    def make_with_room(self, make: Callable[[], int]) -> int:
        """As :meth:`with_room`, and blocks."""
        return drive(self.with_room(make))

    def _before_fork(self) -> None:
        self.lock.acquire()
        if self.reaper is not None:
            self.reaper.before_fork()

    def _in_parent(self) -> None:
        if self.reaper is not None:
            self.reaper.after_fork()
        self.lock.release()

    def _in_child(self) -> None:
        """Runs in every forked child, before anything else does.

        First the epoll descriptors, without epoll_ctl: deleting from a set that is shared with the parent would remove
        the *parent's* registration.  Then the sockets that were registered there, and those that the parent was about
        to close; then who keeps things by their numbers, from the bottom up; and at last what threads were closing that
        do not exist here.
        """
        for private in sorted(self.privates, key=lambda private: not private.epoll):
            private.in_child()
        for identity, number in self.closing.items():
            # Closed by the parent before the fork, the number may be anybody's.
            if identity_of(number) == identity:
                lib.lx_close(number)
        self.closing.clear()
        for part in (self.mounts, self.reaper, self.space, *self.entrypoints):
            if part is not None:
                part.in_child()
        left = tuple(self.lists.values())
        self.lists.clear()
        if left and self.reaper is not None:
            self.reaper.close(left)
        self.lock.release()


process = Process()
os.register_at_fork(
    before=process._before_fork,  # noqa: SLF001 - nobody else may call it, nor the others
    after_in_parent=process._in_parent,  # noqa: SLF001 - likewise
    after_in_child=process._in_child,  # noqa: SLF001 - likewise
)
# Registered last, and so begun first, and ended last: what a signal handler raises in between would be swallowed.
os.register_at_fork(
    before=lib.cm_hold_signals, after_in_parent=lib.cm_release_signals, after_in_child=lib.cm_release_signals
)
