"""Calls through a door, awaited: each on a channel of its own, in the steps that threads take too."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel

from capmarshal._async_client.limiter import Limiter
from capmarshal._async_client.waiting import awaited
from capmarshal._client.knocking import NO_ROOM, again, channel_to, check_time, knock, too_late
from capmarshal._client.unanswered import NeverRan, TooLate, Unanswered
from capmarshal._kernel.deadline import current, in_force
from capmarshal._kernel.errors import Error, TableFull
from capmarshal._kernel.native import FOREVER
from capmarshal._kernel.polling import poll_nanoseconds
from capmarshal._kernel.waiting import Backoff
from capmarshal._protocol.wire import Fail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._async_client.waiting import Watch
    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Answer, Channel, Entries
    from capmarshal._kernel.waiting import Steps, Wait
    from capmarshal._typed.long import Payload

# At a time through one door, from one event loop, or from one method; each has a channel, which costs the server a
# descriptor.
CALLS_MAX = 100

# Wanted in each call.
_now_in_force = current.get

# Nanoseconds.  Whoever polls keeps all other tasks of its event loop from running.
_POLL = min(20_000, poll_nanoseconds)
# Calls in a row that have found their answers by polling, after which the others have their turn.
_IN_A_ROW = 16
# Nanoseconds by which clocks of event loops differ: a method has one deadline, as its scope's and as that of its calls.
_COARSE = 2_000_000
# Seconds for a cancel scope to notice that its deadline has passed, which the server has noticed already.
_NOTICING = 0.05


class _Here:
    """What the calls of one event loop know of each other.

    Attributes:
        in_flight: how many there are.
        in_line: how many wait until there is room in the descriptor table; who comes then stands behind them.
        line: of these: the first one looks for a channel.
        in_a_row: how many have been made since one had to wait.
        limiters: by door; and by method, of the calls that it makes of this process's own entrypoints.
        scopes_let: asked until when the cancel scopes let this task wait, by the event loop's clock.
        watch: asked what waits for channels; None before the first has to.
    """

    __slots__ = ("_last", "in_a_row", "in_flight", "in_line", "limiters", "line", "scopes_let", "watch")

    def __init__(self) -> None:
        self.in_flight = self.in_a_row = self.in_line = 0
        self.line = Limiter(1)
        self.watch: Callable[[], Watch | None] | None = None
        self.limiters: WeakKeyDictionary[object, Limiter] = WeakKeyDictionary()
        # Whose was wanted last, weakly, and that: most calls go through one door.
        self._last: tuple[Callable[[], object], Limiter] = _nothing, Limiter(0)
        # Older ones of anyio's do not tell.  It finds out in each call, otherwise, which event loop this is.
        backend: Any = getattr(anyio.lowlevel.current_token(), "backend_class", anyio)
        self.scopes_let: Callable[[], float] = backend.current_effective_deadline

    def limiter_of(self, door: Door) -> Limiter:
        """Of the calls through a door.

        Where that leads to this process, of those of the method that makes them: what waits for it has its place.
        """
        home = door.home() if door.home is not None else None
        whose: object = door
        if home is not None:
            if why := home.never_while_awaited():
                raise RuntimeError(f"calling entrypoint {home.label!r} {why}")
            whose = home.method_here() or door
        last, limiter = self._last
        if last() is whose:
            return limiter
        limiter = self.limiters.get(whose) or Limiter(CALLS_MAX)
        self.limiters[whose] = limiter
        self._last = weakref.ref(whose), limiter
        return limiter


def _nothing() -> None:
    return None


_here = anyio.lowlevel.RunVar[_Here]("capmarshal.calls")


# The same, by event loop of asyncio: found sooner.
_of_asyncio: WeakKeyDictionary[object, _Here] = WeakKeyDictionary()
# The one that was wanted last, and of which loop, weakly.
_last: tuple[Callable[[], object], _Here | None] = _nothing, None


def _asyncios() -> object:
    """The event loop, if it is asyncio's that runs this task, and not one of trio's that is its guest; else None."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else task.get_loop()


def _this_loop() -> _Here:
    global _last
    loop = _asyncios()
    last, here = _last
    if here is not None and loop is not None and last() is loop:
        return here
    here = _here.get(None) if loop is None else _of_asyncio.get(loop)
    if here is None:
        here = _Here()
        if loop is None:
            _here.set(here)
        else:
            _of_asyncio[loop] = here
    if loop is not None:
        _last = weakref.ref(loop), here
    return here


def _begin_watch() -> Callable[[], Watch | None]:
    """What is asked for the watch of this event loop; a weak reference, for who is found by a loop must not keep it."""
    if _asyncios() is None:
        return _nothing
    # Where it is used, it is imported already.
    from capmarshal._async_client.asyncio_watch import make_watch

    watch = make_watch()
    return _nothing if watch is None else weakref.ref(watch)


def _limit(here: _Here) -> int:
    """Until when the cancel scopes let this task wait; of another clock, so that it is what is left that counts."""
    limit = here.scopes_let()
    if limit == math.inf:
        return FOREVER
    left = max(limit - anyio.current_time(), 0)
    return time.monotonic_ns() + int(left * 1_000_000_000)


async def exchange(door: Door, key: bytes, payload: Payload, entries: Entries, numbers: Sequence[int]) -> Answer:
    """As :func:`capmarshal._client.knocking.exchange`.

    What ends it first of cancel scopes and :class:`capmarshal.timeout` ends it in its own way; the server is told the
    earlier of their deadlines.  A call that is cancelled has no channel any more, which its server sees.

    Raises:
        TooLate, ServerGone: with words for the error that they become, but for whose call it was.
        TooManyInFlight, DescriptorsLost, TooLarge, ProtocolError, KernelError: as they say.
    """
    deadline, began = _now_in_force(), 0
    # Mostly that very object, here and below.
    if deadline is not FOREVER and deadline != FOREVER:
        deadline = in_force()
        began = check_time(deadline)
    here = _this_loop()
    limit = _limit(here)
    travels = deadline if limit is FOREVER else min(deadline, limit)
    if here.in_a_row >= _IN_A_ROW or (limit is not FOREVER and limit <= time.monotonic_ns()):
        here.in_a_row = 0
        await anyio.lowlevel.checkpoint()
    limiter = here.limiter_of(door)
    here.in_flight += 1
    try:
        if not limiter.take_now() and not await limiter.take(deadline):
            raise TooLate(f"not made: {CALLS_MAX} others that go the same way did not end", ran="no")
        try:
            answer = await _repeated(here, door, key, payload, entries, numbers, deadline, travels)
        finally:
            limiter.give_back()
    except TooLate as late:
        if limit != FOREVER and limit < deadline + _COARSE:
            await anyio.sleep(_NOTICING)
        raise too_late(late, door, began) from None
    finally:
        here.in_flight -= 1
    if type(answer) is tuple and type(answer[0]) is Fail and limit <= min(deadline, time.monotonic_ns()) + _COARSE:
        # The scope's own end, which the server was told, is no error of the call's.
        await anyio.sleep(_NOTICING)
    return answer


async def _channel_to(here: _Here, door: Door, deadline: int) -> tuple[Channel, bool]:
    """As :func:`channel_to`; where the descriptor table is full, calls of this event loop wait in line."""
    if not here.in_line:
        with contextlib.suppress(TableFull):
            return await awaited(knock(door, deadline)), False
    here.in_line += 1
    try:
        if not here.line.take_now() and not await here.line.take(deadline):
            raise TooLate(NO_ROOM, ran="no")
        try:
            return await awaited(channel_to(door, deadline))
        finally:
            here.line.give_back()
    finally:
        here.in_line -= 1


async def _repeated(
    here: _Here,
    door: Door,
    key: bytes,
    payload: Payload,
    entries: Entries,
    numbers: Sequence[int],
    deadline: int,
    travels: int,
) -> Answer:
    """The answer, on whichever channel it came."""
    backoff: Backoff | None = None
    while True:
        channel: Channel
        try:
            if here.in_line:
                raise IndexError
            channel, kept = door.idle.pop(), True
        except IndexError:
            channel, kept = await _channel_to(here, door, deadline)
        try:
            poll = _POLL if here.in_flight == 1 else 0
            heard: Answer | Steps[Answer] | None
            if type(payload) is bytes and not numbers and channel.send_now(key, payload, travels):
                heard = channel.heard(deadline, poll) if poll else None
            else:
                heard = channel.in_steps(key, payload, entries, numbers, deadline, travels, poll)
            wait: Wait | None = None
            if isinstance(heard, (bytes, tuple)):
                here.in_a_row += 1
                return heard
            if heard is not None:
                try:
                    wait = next(heard)
                except StopIteration as ended:
                    here.in_a_row += 1
                    answer: Answer = ended.value
                    return answer
            here.in_a_row = 0
            if here.watch is None:
                here.watch = _begin_watch()
            watch = here.watch()
            if heard is None:
                if watch is not None and await watch.hears(channel, deadline) > 0:
                    heard = channel.heard(deadline)
                if heard is None:
                    heard = channel.later(deadline)
            return heard if isinstance(heard, (bytes, tuple)) else await awaited(heard, wait, watch)
        except NeverRan:
            backoff = backoff or Backoff(deadline)
            await awaited(again(door, backoff, kept=kept))
        except (Unanswered, Error):
            raise
        except BaseException:
            # Cancelled, or Ctrl-C: so its server hears of it.
            channel.drop()
            raise
        finally:
            if channel.usable:
                door.idle.append(channel)
