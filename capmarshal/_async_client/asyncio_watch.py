"""Waiting for channels in asyncio's event loops, uvloop among them: anyio's way costs several times as much.

The channels of a loop are in an epoll set, which the loop watches for as long as it lasts.  Whoever waits has a number
of its own there, which comes with what is reported.  A channel stays in the set between two calls, and each answer is
reported once (EPOLLET): so a call needs no system call to wait.  Other loops and threads may use it meanwhile, and know
nothing of this one: what is reported when nobody waits ends that.  Whoever waits goes on where it is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import select
from struct import Struct
from typing import TYPE_CHECKING

from capmarshal._descriptors.private import make_epoll_set
from capmarshal._kernel.deadline import seconds_until
from capmarshal._kernel.native import FOREVER, ffi, lib
from capmarshal._kernel.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._client.channel import Channel
    from capmarshal._kernel.waiting import Wait

# Looked up once: an attribute of cffi's is 40 ns, and these are wanted in each call.
_epoll_ctl, _ADD, _DEL, _MOD = lib.lx_epoll_ctl, lib.EPOLL_CTL_ADD, lib.EPOLL_CTL_DEL, lib.EPOLL_CTL_MOD
_epoll_pwait = lib.lx_epoll_pwait
# Events that are taken at a time.
_AT_ONCE = 64
# struct epoll_event is packed on x86-64 alone, epoll_ctl(2).
_SIZE = ffi.sizeof("struct epoll_event")
_events_in = Struct("=IQ" if _SIZE == 12 else "=I4xQ").iter_unpack


class AsyncioWatch:
    """The channels of the running event loop.

    The loop keeps it: whatever else does, does so weakly, and so it goes with the loop, whether that was left or not.

    Raises:
        TableFull, KernelError: there is no epoll set.
    """

    __slots__ = ("__weakref__", "_bytes", "_event", "_events", "_in_set", "_loop", "_set", "_waiting")

    def __init__(self) -> None:
        self._set = make_epoll_set()
        self._event = ffi.new("struct epoll_event *")
        self._events = ffi.new("struct epoll_event[]", _AT_ONCE)
        self._bytes = ffi.buffer(self._events)
        # By the number that comes with what is reported.
        self._waiting: dict[int, Prompt[int]] = {}
        # These numbers, by descriptor: of what is in the set, or was when it was closed.
        self._in_set: dict[int, int] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._set.number, self._take)

    def _take(self) -> None:
        count = _epoll_pwait(self._set.number, self._events, _AT_ONCE, 0)
        if count > 0:
            self._tell(_events_in(self._bytes[: count * _SIZE]))

    def _tell(self, reported: Iterator[tuple[int, int]]) -> None:
        waiting = self._waiting
        try:
            for happened, known in reported:
                prompt = waiting.pop(known, None)
                if prompt is None:
                    self._forget(known)
                else:
                    prompt.answer(happened)
        except BaseException:
            # What ends the loop may have come out of a task; it may run again, and nobody reports the others anew.
            self._loop.call_soon(self._tell, reported)
            raise

    def _forget(self, known: int) -> None:
        """Has what nobody waits for reported no more: others use it, or it has ended."""
        for number, other in self._in_set.items():
            if other == known:
                self._remove(number)
                return

    def _remove(self, number: int) -> None:
        del self._in_set[number]
        _epoll_ctl(self._set.number, _DEL, number, self._event)

    def _enter(self, number: int, events: int) -> int:
        """Has something of a descriptor reported, whatever there is already; by which number, or 0 if it cannot be."""
        event, known = self._event, _next_number()
        event.events, event.data.u64 = events, known
        result = _epoll_ctl(self._set.number, _MOD, number, event)
        if result == -errno.ENOENT:
            result = _epoll_ctl(self._set.number, _ADD, number, event)
        if result < 0:
            # No room in the kernel; or this is a forked child, whose parent's it is.
            return 0
        self._in_set[number] = known
        return known

    async def hears(self, channel: Channel, deadline: int) -> int:
        """Waits for the answer on a channel on which a call was sent just now; gives what :meth:`happens` does."""
        number = channel.near.number
        if self._in_set.get(number) != channel.watched:
            channel.watched = self._enter(number, select.EPOLLIN | select.EPOLLET)
        return await self._reported(number, channel.watched, deadline)

    async def happens(self, wait: Wait) -> int:
        """Waits for a channel; what poll(2) would report; 0 if nothing did in time; -1 if it cannot be waited for."""
        known = self._enter(wait.number, wait.events | select.EPOLLONESHOT)
        return await self._reported(wait.number, known, wait.until)

    async def _reported(self, number: int, known: int, until: int) -> int:
        if not known:
            return -1
        prompt = self._waiting[known] = Prompt(self._loop)
        timer = (
            None
            if until is FOREVER or until == FOREVER
            else self._loop.call_later(seconds_until(until), prompt.answer, 0)
        )
        happened: int = 0
        try:
            happened = await prompt
            return happened
        finally:
            if timer is not None:
                timer.cancel()
            if not happened:
                self._waiting.pop(known, None)
                if self._in_set.get(number) == known:
                    # Before the channel is closed, perhaps: who else has a copy would go on being waited for.
                    self._remove(number)


# Another one each time, in whichever loop: none knows a channel by its number in another one.
_next_number = itertools.count(1).__next__


def make_watch() -> AsyncioWatch | None:
    """Where the channels of the running event loop wait; None where there is no room for that."""
    with contextlib.suppress(OSError):
        return AsyncioWatch()
    return None
