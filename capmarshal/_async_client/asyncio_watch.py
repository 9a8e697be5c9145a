"""Waiting for channels in asyncio's event loops, uvloop among them: anyio's way costs several times as much.

The channels of a loop that wait are in an epoll set, which the loop watches for as long as it lasts, and which is never
told more of a channel than that one event that somebody waits for (EPOLLONESHOT).  So a channel may be used in other
loops and threads, which know nothing of this one: what comes late has a number that nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import select
from typing import TYPE_CHECKING

from capmarshal._descriptors.private import make_epoll_set
from capmarshal._kernel.deadline import seconds_until
from capmarshal._kernel.native import FOREVER, ffi, lib

if TYPE_CHECKING:
    from capmarshal._kernel.waiting import Wait

# Looked up once: an attribute of cffi's is 40 ns, and these are wanted in each call.
_epoll_ctl, _ADD, _DEL, _MOD = lib.lx_epoll_ctl, lib.EPOLL_CTL_ADD, lib.EPOLL_CTL_DEL, lib.EPOLL_CTL_MOD
_ONESHOT = select.EPOLLONESHOT
# Events that are taken at a time.
_AT_ONCE = 16


class AsyncioWatch:
    """The channels that wait in the running event loop.

    The loop keeps it: whatever else does, does so weakly, and so it goes with the loop, whether that was left or not.

    Raises:
        TableFull, KernelError: there is no epoll set.
    """

    __slots__ = ("__weakref__", "_event", "_events", "_next", "_set", "_waiting")

    def __init__(self) -> None:
        self._set = make_epoll_set()
        self._event = ffi.new("struct epoll_event *")
        self._events = ffi.new("struct epoll_event[]", _AT_ONCE)
        # By the number that the event has: another for each wait.
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._next = itertools.count(1).__next__
        asyncio.get_running_loop().add_reader(self._set.number, self._take)

    def _take(self) -> None:
        events, waiting = self._events, self._waiting
        for index in range(lib.lx_epoll_pwait(self._set.number, events, _AT_ONCE, 0)):
            event = events[index]
            future = waiting.pop(event.data.u64, None)
            if future is not None and not future.done():
                future.set_result(event.events)

    async def happens(self, wait: Wait) -> int:
        """Waits for a channel; what poll(2) would report; 0 if nothing did in time; -1 if it cannot be waited for."""
        event, token = self._event, self._next()
        event.events, event.data.u64 = wait.events | _ONESHOT, token
        result = _epoll_ctl(self._set.number, _MOD, wait.number, event)
        if result == -errno.ENOENT:
            result = _epoll_ctl(self._set.number, _ADD, wait.number, event)
        if result < 0:
            # No room in the kernel; or this is a forked child, whose parent's it is.
            return -1
        loop = asyncio.get_running_loop()
        future = self._waiting[token] = loop.create_future()
        timer = None if wait.until == FOREVER else loop.call_later(seconds_until(wait.until), _late, future)
        happened: int = 0
        try:
            happened = await future
            return happened
        finally:
            if timer is not None:
                timer.cancel()
            if not happened:
                # Before the channel is closed, perhaps: who else has a copy would go on being waited for.
                self._waiting.pop(token, None)
                _epoll_ctl(self._set.number, _DEL, wait.number, event)


def _late(future: asyncio.Future[int]) -> None:
    if not future.done():
        future.set_result(0)


def make_watch() -> AsyncioWatch | None:
    """Where the channels of the running event loop wait; None where there is no room for that."""
    with contextlib.suppress(OSError):
        return AsyncioWatch()
    return None
