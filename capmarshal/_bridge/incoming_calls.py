"""Calls that the other bridge makes: each runs once at most, by what it was given of this machine's capabilities.

One that ends soon is answered at once; of another the other is told that it runs, and then, until it has heard it, how
it ended.  What it came to is kept until the other says that it wants to know no more of it, or is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from capmarshal import (
    ArgumentError,
    CallTimeout,
    Capability,
    Dataspace,
    StaleCapability,
    TooLarge,
    UntypedCall,
    timeout,
)
from capmarshal._bridge_engine.engine import LARGEST, EngineError, Later
from capmarshal._bridge_engine.handling import CONCURRENCY
from capmarshal._bridge_link import lines
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.clocks import now
from capmarshal._bridge_link.link import LinkLost
from capmarshal._bridge_link.messages import Call, Done, Failed, Kind, Outcome, Result, Running, State, Taken, written
from capmarshal._bridge_link.sealing import NotGenuine
from capmarshal._kernel.hands import Hands
from capmarshal._protocol import faults
from capmarshal._protocol.wire import METHOD_MAX

from .budget import Spending
from .crossing import Left
from .doors import NoRoom
from .exports import TooMany
from .limits import ENDED_MOST, TABLE_MOST
from .shares import no_more_descriptors
from .turns import OF_A_CLIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.sealing import Label
    from capmarshal._kernel.hands import Hand

    from .budget import Budget
    from .crossing import Arrived, Crossing
    from .exports import Exports, Root
    from .shares import Part

# Seconds in which a call is answered at once, if it ends by then.
_AT_ONCE = 0.25

# So many are waited for; of more that come beside them the other is told at once that they run.  Each that is waited
# for has one of the places of this link's subject at the engine; what else the link asks for, pings too, has the rest.
_AT_ONCE_MOST = CONCURRENCY // 2

# Bytes of what a call came to, which goes as one body; so many entries of a table do in any case, with a payload.
_OUTCOME_MOST = LARGEST - 1_000
_MENTIONS_SURE = 500

_NANOSECONDS = 1_000_000_000

_NOT_THERE = "the object is not there any more: released, or its token was revoked"


class _Incoming:
    """One of them.

    Attributes:
        label: of its question.
        call: what it is.
        arrived: what has come of its table.
        left: what its result has mentioned.
        spending: bytes of its arguments and its result.
        hand: that does it, until it is over.
        outcome: how it has ended; None of one that runs, or of which the other wants to know no more.
        is_over: it does not run any more.
        told: whether the other is told, or was, how it ended.
        later: its answer, as long as it is waited for.
        at_once_until: until when it is, by the clock of the event loop.
        at_end: done when it is over.
    """

    __slots__ = (
        "_calls",
        "arrived",
        "at_end",
        "at_once_until",
        "call",
        "hand",
        "is_over",
        "label",
        "later",
        "left",
        "outcome",
        "spending",
        "told",
    )

    def __init__(self, calls: IncomingCalls, label: Label, call: Call, arrived: Arrived, spending: Spending) -> None:
        self._calls = calls
        self.label = label
        self.call = call
        self.arrived = arrived
        self.left = Left()
        self.spending = spending
        self.hand: Hand | None = None
        self.outcome: Outcome | None = None
        self.is_over = self.told = False
        self.later: Later | None = None
        self.at_once_until = 0.0
        self.at_end: list[Callable[[], object]] = []

    async def do(self) -> None:
        """Runs it."""
        await self._calls.run(self)

    def over(self) -> None:
        """It has ended, or was cancelled."""
        self.is_over, self.hand = True, None
        self._calls.over(self)
        # What it has come to is kept, perhaps for long, and not what it was given.
        del self.call, self.arrived
        for do in self.at_end:
            do()
        self.at_end.clear()

    def cancel(self) -> None:
        """Has it end."""
        if self.hand is not None:
            self.hand.cancel(self)

    async def wait(self) -> None:
        """Returns when it is over."""
        if not self.is_over:
            ended = asyncio.Event()
            self.at_end.append(ended.set)
            await ended.wait()


class IncomingCalls:
    """All of one link."""

    def __init__(
        self,
        link: Link,
        exports: Exports,
        crossing: Crossing,
        *,
        copying: Budget,
        revoke: Callable[[Root], None],
        budget: Budget,
        most: int,
        max_bytes: int,
        descriptors: Part,
        remembered: Part,
        bridge: object,
    ) -> None:
        """None yet; all are borrowed.

        Args:
            link: by which they come.
            exports: what they are calls of.
            crossing: of their tables.
            copying: what dataspaces among their arguments may take together, as long as they run.
            revoke: what revokes all that was reached by a token.
            budget: what their arguments and results may take together, until the other has heard of their end.
            most: how many may run.
            max_bytes: of one's arguments.
            descriptors: that may be held for them; borrowed.
            remembered: those that run, and those of whose end the other has not heard; borrowed.
            bridge: that the other is, by whichever link.
        """
        self._link = link
        self._exports = exports
        self._crossing = crossing
        self._copying = copying
        self._revoke = revoke
        self._budget = budget
        self._most = most
        self._max_bytes = max_bytes
        self._descriptors = descriptors
        self._remembered = remembered
        self._bridge = bridge
        self._calls: dict[bytes, _Incoming] = {}
        self._running = 0
        self._running_of: dict[int, int] = {}
        # They end with the link.
        self._hands = Hands(link.adopt, lambda: not link.lost)
        # Those that are waited for, the one that has come first before all others; and what ends that.
        self._waited_for: dict[_Incoming, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._telling: set[asyncio.Task[None]] = set()
        link.answer(Kind.CALL, self._called)
        link.has_come = self._has_come
        link.at_loss(self._lose)

    def ended(self, call: bytes) -> None:
        """The other has heard its outcome."""
        incoming = self._calls.get(call)
        if incoming is None:
            return
        if not incoming.is_over:
            # It can't have: what the call has, and will have, is taken back.
            self.given_up(call)
            return
        del self._calls[call]
        self._remembered.give_back()
        incoming.spending.end()
        self._crossing.let_go(incoming.left)

    def given_up(self, call: bytes) -> None:
        """The other wants to know no more of it: it is cancelled if it runs, and never taken if it has not come."""
        incoming = self._calls.pop(call, None)
        if incoming is None:
            self._link.bar(Kind.CALL, call)
            return
        self._remembered.give_back()
        if incoming.is_over:
            self._forget(incoming)
        else:
            # Not before it is over: until then it may have a result, too.
            incoming.at_end.append(partial(self._forget, incoming))
            incoming.cancel()

    def _forget(self, incoming: _Incoming) -> None:
        incoming.spending.end()
        self._crossing.take_back(incoming.left)

    async def drain(self) -> None:
        """Takes no more, and returns when those that run have ended, and the other has heard of it."""
        self._draining = True
        while running := [call for call in self._calls.values() if not call.is_over]:
            await running[0].wait()
        while self._telling:
            await asyncio.wait(self._telling)

    def end(self) -> list[bytes]:
        """Takes no more; those that have come, and whose outcome the other may not have heard."""
        self._draining = True
        return list(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def state(self, call: bytes) -> State:
        """What has become of a call; one that has not come never will be taken."""
        incoming = self._calls.get(call)
        if incoming is not None:
            # What it was answered at once was not heard.
            self._start_telling(incoming)
            return State.RUNNING
        # Who asks has neither heard its outcome nor given it up.  So what has come, and is not here, was refused.
        return State.UNSAID if self._link.bar(Kind.CALL, call) is None else State.NEVER

    def _has_come(self, label: Label) -> bool:
        return label.kind == Kind.CALL and label.call in self._calls

    def _called(self, label: Label, call: Call) -> Later | Running:
        if len(call.method.encode()) > METHOD_MAX:
            raise NotTaken("it has a longer name than a call can have")
        if len(call.table) > TABLE_MOST:
            raise NotTaken(f"{len(call.table):,} entries in the table of a call, and its maximum is {TABLE_MOST:,}")
        if label.call in self._calls:
            # Who makes calls has one for each; and what has come is remembered as long as that may come again.
            raise NotTaken("its ID is that of another call")
        if self._running >= self._most:
            raise NotTaken(f"{self._most:,} calls of that bridge run, which is as many as may")
        of_client = self._running_of.get(call.client, 0)
        if of_client >= OF_A_CLIENT * (self._most - self._running):
            raise NotTaken(
                f"{of_client:,} calls of one client of that bridge run: its others have, or may need, the rest"
            )
        if len(self._calls) >= self._most + ENDED_MOST:
            raise NotTaken(f"{ENDED_MOST:,} calls of that bridge have ended, and it does not say that it has heard it")
        if self._draining:
            raise NotTaken("it is about to end, and takes no more calls")
        if not self._descriptors.take():
            raise NotTaken(no_more_descriptors(self._descriptors.held))
        if not self._remembered.take():
            self._descriptors.give_back()
            raise NotTaken(
                "calls of that bridge have ended, and it does not say that it has heard it; others may need room"
            )
        arrived = self._crossing.arrive(call.table)
        incoming = _Incoming(self, label, call, arrived, Spending(self._budget))
        self._running += 1
        self._running_of[call.client] = of_client + 1
        self._calls[label.call] = incoming
        at_once = len(self._waited_for) < _AT_ONCE_MOST
        later = Later()
        if at_once:
            self._wait_for(incoming, later)
        # It may be over by that.
        hand = self._hands.begin(incoming)
        if not incoming.is_over:
            incoming.hand = hand
        if at_once:
            return later
        self._start_telling(incoming)
        return Running()

    def _wait_for(self, incoming: _Incoming, later: Later) -> None:
        """Has it answered at once, if it ends soon."""
        loop = asyncio.get_running_loop()
        incoming.later, incoming.at_once_until = later, loop.time() + _AT_ONCE
        self._waited_for[incoming] = None
        if self._timer is None:
            self._timer = loop.call_at(incoming.at_once_until, self._look)

    def _look(self) -> None:
        """One timer rings for all that are waited for: most have ended by then."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for incoming in tuple(self._waited_for):
            if incoming.at_once_until > now:
                self._timer = loop.call_at(incoming.at_once_until, self._look)
                return
            self._start_telling(incoming)
            self._answer(incoming, Running())

    def _answer(self, incoming: _Incoming, answer: Outcome | Running) -> None:
        """Answers a call, if it is waited for: from here on it is not."""
        later = incoming.later
        if later is None:
            return
        body = self._link.sealed(incoming.label, answer)
        incoming.later = None
        del self._waited_for[incoming]
        later.answer(body)

    def over(self, incoming: _Incoming) -> None:
        """One has ended."""
        self._running -= 1
        client = incoming.call.client
        left = self._running_of[client] - 1
        if left:
            self._running_of[client] = left
        else:
            del self._running_of[client]
        self._descriptors.give_back()
        self._crossing.turn_away(incoming.arrived)
        if incoming.outcome is None and self._calls.get(incoming.label.call) is incoming:
            # The other waits for it still, unless it is lost.
            incoming.outcome = _broken_off(incoming.call)
        self._answer(incoming, incoming.outcome or Running())

    def _start_telling(self, incoming: _Incoming) -> None:
        if incoming.told or self._link.lost:
            return
        incoming.told = True
        telling = self._link.run(self._tell(incoming))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, incoming: _Incoming) -> None:
        """Tells the other when it has ended."""
        await incoming.wait()
        if incoming.outcome is not None:
            with contextlib.suppress(LinkLost, NotTaken):
                await self._link.insist(Kind.DONE, Done(incoming.label.call, incoming.outcome), Taken)

    async def run(self, incoming: _Incoming) -> None:
        """Runs one, and answers it."""
        try:
            outcome = await self._outcome(incoming.call, incoming.arrived, incoming.left, incoming.spending)
            self._answer(incoming, outcome)
            incoming.outcome = outcome
        except Exception as error:  # noqa: BLE001 - a fault in what tells of all others; it has no outcome then
            lines.faults.log(
                logging.ERROR, "bridge: a fault in a call of %s()", incoming.call.method[:100], error=error
            )
            self._crossing.take_back(incoming.left)

    async def _outcome(self, call: Call, arrived: Arrived, left: Left, spending: Spending) -> Outcome:
        table: list[Any] = []
        copying = Spending(self._copying)
        try:
            await self._crossing.enter(arrived, table, copying)
            return await self._forward(call, table, left, spending)
        except Exception as error:  # noqa: BLE001 - all of them are told to who called
            # The other is not told of what it may have mentioned.
            self._crossing.take_back(left)
            return Failed(faults.encode(_fault(error, call)))
        finally:
            for thing in table:
                if isinstance(thing, Dataspace):
                    thing.close()
            copying.end()

    async def _forward(self, call: Call, table: list[Any], left: Left, spending: Spending) -> Outcome:
        export = self._exports.at(call.object)
        if export is None or not isinstance(export.thing, Capability):
            raise StaleCapability(_NOT_THERE)
        payload = await self._crossing.receive(call.payload, self._max_bytes, spending)
        turns = export.turns
        if not turns.take_now(self._bridge, call.client) and not await turns.take(
            self._bridge, call.client, _left(call)
        ):
            raise CallTimeout(f"{call.method}(): others of that bridge, by the same way, did not end", ran="no")
        try:
            if self._exports.at(call.object) is not export:
                raise StaleCapability(_NOT_THERE)
            passed_on = UntypedCall(call.method, payload, table)
            if not call.deadline:
                result = await export.forward(passed_on)
            else:
                with timeout(_left(call)):
                    result = await export.forward(passed_on)
        finally:
            turns.give_back(self._bridge, call.client)
        try:
            made = self._crossing.leave(result.table, export.root, f"{call.method}(), result")
        finally:
            for thing in result.table:
                # Lent, if it was, by a descriptor of the lender's own.
                if not isinstance(thing, Capability) and hasattr(thing, "close"):
                    thing.close()
        left.mentions, left.exported = made.mentions, made.exported
        left.lent, left.homing = made.lent, made.homing
        if export.root is not None and export.root.revoked is not None:
            # While it ran: what it has mentioned is revoked as well, and told of later than that.
            self._revoke(export.root)
        spending.take(len(result.payload))
        outcome = Result(self._crossing.pay(result.payload, left), left.mentions)
        if len(left.mentions) > _MENTIONS_SURE and len(written(outcome)) > _OUTCOME_MOST:
            raise TooLarge(f"{call.method}(): {len(left.mentions):,} entries in the table of its result are too many")
        return outcome

    def _lose(self, _why: str) -> None:
        for incoming in self._calls.values():
            if incoming.is_over:
                incoming.spending.end()
            else:
                incoming.at_end.append(incoming.spending.end)
                incoming.cancel()
        self._remembered.give_back(len(self._calls))
        self._calls.clear()
        if self._timer is not None:
            self._timer.cancel()


def _left(call: Call) -> float | None:
    """Seconds until its deadline; None where it has none."""
    return max(call.deadline - now(), 0) / _NANOSECONDS if call.deadline else None


def _broken_off(call: Call) -> Failed:
    """What one has come to that ended in no way of its own: by a fault here, or cancelled by what ends all tasks."""
    words = f"{call.method}(): its server's bridge has broken it off, by a fault or as it ends; it may have run"
    return Failed(faults.encode(faults.Fault(faults.Code.BROKEN_OFF, words)))


def _fault(error: Exception, call: Call) -> faults.Fault:
    """What the caller is told."""
    if isinstance(error, (TooMany, NoRoom)):
        error = TooLarge(str(error))
    if isinstance(error, (LinkLost, EngineError, NotTaken, NotGenuine)):
        error = ArgumentError(f"{call.method}(): an argument was not fetched: {error}")
    found = faults.carried_by(error) or faults.of_call(error)
    if found is None:
        lines.faults.log(logging.ERROR, "bridge: %s() could not be forwarded", call.method[:100], error=error)
        found = faults.raised(error, ())
    return found
