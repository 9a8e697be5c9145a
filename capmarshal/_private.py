"""Descriptors that a forked child must not keep, and the lock that is held across every fork.

A child that keeps a server's end of a socket keeps that server's clients waiting after the server's death; one
that keeps a client's channel shares its conversation.  So whoever makes such a descriptor makes and registers
it under :data:`lock`, which ``os.fork()`` takes too: no fork falls in between.

The child closes its epoll descriptors first, and calls no epoll_ctl: deleting from an epoll set that it shares
with its parent would remove the *parent's* registration.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from capmarshal._lx import lib

if TYPE_CHECKING:
    from collections.abc import Callable

# Re-entrant: a signal handler may call while its thread holds it.
lock = threading.RLock()

_epolls: set[int] = set()
_sockets: set[int] = set()
_in_child: list[Callable[[], None]] = []


def register(descriptor: int, *, epoll: bool = False) -> None:
    """Has a forked child close ``descriptor``; the caller holds :data:`lock` and goes on owning it."""
    (_epolls if epoll else _sockets).add(descriptor)


def close(descriptor: int) -> None:
    """Closes a registered descriptor; it is the caller's no longer."""
    with lock:
        _epolls.discard(descriptor)
        _sockets.discard(descriptor)
        lib.lx_close(descriptor)


def unregister(descriptor: int) -> None:
    """Forgets a registered descriptor, which somebody else will close."""
    with lock:
        _sockets.discard(descriptor)


def run_in_child(forget: Callable[[], None]) -> None:
    """Has ``forget`` called in every forked child, once the private descriptors are closed."""
    _in_child.append(forget)


def _after_fork_in_child() -> None:
    for descriptor in (*_epolls, *_sockets):
        lib.lx_close(descriptor)
    _epolls.clear()
    _sockets.clear()
    for forget in _in_child:
        forget()
    lock.release()


os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=_after_fork_in_child)
