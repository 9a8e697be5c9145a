"""Steps, driven by an event loop: see :mod:`capmarshal._kernel.waiting`.

An event loop has one place for each number, and uvloop sets O_NONBLOCK on the open file behind it.  So what is awaited
is nobody else's: a socket of this process's alone, which one task uses at a time.  At a door, which many share, a task
sleeps, and looks.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio
import anyio.lowlevel

from capmarshal._kernel.deadline import seconds_until
from capmarshal._kernel.native import FOREVER, NOW, lib
from capmarshal._kernel.waiting import LET_OTHERS_RUN, Backoff

if TYPE_CHECKING:
    from capmarshal._client.channel import Channel
    from capmarshal._kernel.waiting import Steps, Wait

T = TypeVar("T")


class Watch(Protocol):
    """Waits for channels in an event loop of one kind, by its own means."""

    async def happens(self, wait: Wait) -> int:
        """Waits; what poll(2) would report; 0 if nothing did in time; -1 if it cannot be waited for."""

    async def hears(self, channel: Channel, deadline: int) -> int:
        """Waits likewise for the answer on a channel, where a call was sent just now, and nothing has been awaited."""


_IN = select.POLLIN | select.POLLRDHUP


def within(deadline: int) -> anyio.CancelScope:
    """A block that is left at a deadline of ours, without an error."""
    return anyio.move_on_after(seconds_until(deadline))


async def awaited(steps: Steps[T], wait: Wait | None = None, watch: Watch | None = None) -> T:
    """Takes all steps, or those after ``wait``, which the first of them have yielded.

    Args:
        steps: to be taken.
        wait: that is to be awaited first.
        watch: what waits for channels in this event loop, if there is more than anyio.
    """
    again = False
    try:
        if wait is None:
            wait = next(steps)
        while True:
            try:
                happened = await happens(wait, watch)
                if again:
                    # Of a long answer, the next record may come each time before the loop comes to a cancellation.
                    await anyio.lowlevel.checkpoint_if_cancelled()
            except BaseException as error:  # noqa: BLE001 - it is theirs to deal with
                wait = steps.throw(error)
            else:
                wait = steps.send(happened)
                again = True
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        # Ctrl-C between two steps is none that was thrown in.
        steps.close()


async def happens(wait: Wait, watch: Watch | None = None) -> int:
    """Waits; what poll(2) reports, or as good as that; 0 if nothing did in time."""
    number, events, until, shared = wait
    if wait is LET_OTHERS_RUN:
        await anyio.lowlevel.checkpoint()
        return 0
    if until == NOW:
        return _poll(number, events)
    if shared or number < 0 or not events:
        return await _asleep(wait)
    if watch is not None and (happened := await watch.happens(wait)) >= 0:
        # Where others have kept the loop busy, both may have come, and it looks at the clock first.
        return happened or _poll(number, events)
    if events & select.POLLOUT and events & _IN:
        return await _both(wait)
    ready = anyio.wait_writable if events & select.POLLOUT else anyio.wait_readable
    if until == FOREVER:
        await ready(number)
        return events
    with within(until):
        await ready(number)
        return events
    # Where others have kept the loop busy, both may have come, and some loops look at the clock first.
    return _poll(number, events)


def _poll(number: int, events: int) -> int:
    """What poll(2) reports now."""
    return max(lib.cm_wait(number, events, NOW), 0) if number >= 0 else 0


async def _asleep(wait: Wait) -> int:
    """As :func:`happens`, and shows the event loop nothing: looks now and then, ever more rarely."""
    backoff = Backoff(wait.until)
    while (until := backoff.until() if wait.number >= 0 else wait.until) != NOW:
        await anyio.sleep(seconds_until(until))
        if (happened := _poll(wait.number, wait.events)) or wait.number < 0:
            return happened
    return 0


async def _both(wait: Wait) -> int:
    """As :func:`happens`, of a socket that may become readable or writable.

    A task of its own for each would cost more than what is sent.  That there is room comes first nearly always; what
    else may have come is looked for now and then.
    """
    backoff = Backoff(wait.until)
    while (until := backoff.until()) != NOW:
        with within(until):
            await anyio.wait_writable(wait.number)
            return wait.events
        if happened := _poll(wait.number, wait.events):
            return happened
    return 0
