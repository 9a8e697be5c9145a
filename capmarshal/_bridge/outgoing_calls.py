"""Calls of objects on another machine: each runs there once at most, and whoever waits is told what is known.

A call is sent, and answered at once, or told to run.  What has become of one that was not answered is asked for: it
runs; or it never came and was barred there, so that it never will run, and is sent again, as another one.  Its caller
is told that it has not run where that is proven so, and else that it may have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from capmarshal import (
    CallTimeout,
    Dataspace,
    Disconnected,
    ProtocolError,
    TooLarge,
    UntypedCall,
    UntypedResult,
    caller,
    remaining,
)
from capmarshal._bridge_engine.engine import EngineError, NotSent, TooLong, Unanswered
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.link import LinkLost
from capmarshal._bridge_link.messages import (
    ANSWER_TO_CALL,
    Call,
    Done,
    Failed,
    Kind,
    Long,
    Outcome,
    Result,
    Running,
    State,
    Taken,
)
from capmarshal._bridge_link.sealing import NotGenuine
from capmarshal._kernel.native import FOREVER
from capmarshal._typed.untyped import method_of

from .budget import Spending
from .crossing import Arrived
from .doors import NoRoom
from .exports import TooMany
from .limits import TABLE_MOST
from .staying import Stays, named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.sealing import Label

    from .budget import Budget
    from .crossing import Crossing, Left
    from .pinging import Pinging

_logger = logging.getLogger("capmarshal")

# Seconds in which a call is answered, or told to run; after that it is asked what has become of it.
_ANSWERED = 1.0

# Seconds after which a call that was not sent, or has been barred, is sent again: the first time, and at most.
_SOON, _LATER = 0.01, 0.5

# Seconds before a deadline in which it is said that a call was not sent until then.
_SAYING = 0.05


class _Never(Exception):
    """The call was never begun, and never will be."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A call whose outcome is waited for; in doubt as long as it is not known whether it has come.

    Attributes:
        came: its outcome, or why it has none, where that is told otherwise than by the answer to its question.
        told: set then, for who waits for that.
    """

    call: bytes
    in_doubt: bool = False
    came: Outcome | Exception | None = None
    told: asyncio.Event | None = None

    def come(self, what: Outcome | Exception) -> None:
        """It is told: once."""
        if self.came is None:
            self.came = what
            if self.told is not None:
                self.told.set()


class OutgoingCalls:
    """All of one link."""

    def __init__(
        self, link: Link, crossing: Crossing, pinging: Pinging, *, copying: Budget, budget: Budget, max_bytes: int
    ) -> None:
        """None yet; all are borrowed; a result has so many bytes at most, and those that come have a budget."""
        self._link = link
        self._crossing = crossing
        self._pinging = pinging
        self._copying = copying
        self._budget = budget
        self._max_bytes = max_bytes
        self._waiting: dict[bytes, _Waiting] = {}
        # Those that were given up, and what they have mentioned: unless they came, that is taken back.
        self._given_up: dict[bytes, Left] = {}
        # Makes numbers of processes that tell nothing of them.
        self._salt = os.urandom(16)
        # Those that had come when the other said that it ends.
        self._came: frozenset[bytes] | None = None
        link.answer(Kind.DONE, self._done)
        link.at_loss(self._lose)

    def in_doubt(self) -> Iterable[bytes]:
        """Those that are waited for, and of which it is not known whether they have come."""
        return [call for call, waiting in self._waiting.items() if waiting.in_doubt]

    def told(self, call: bytes, state: State) -> None:
        """What has become of one that was asked for."""
        left = self._given_up.pop(call, None)
        if left is not None:
            if state is State.UNSAID:
                # With the next ping: the other can't say it at once.
                self._given_up[call] = left
                self._pinging.given_up(call, again=True)
            elif state is State.NEVER:
                self._crossing.take_back(left)
            return
        waiting = self._waiting.get(call)
        if waiting is None:
            return
        if state is State.NEVER:
            waiting.come(_Never())
        elif state is State.RUNNING:
            waiting.in_doubt = False

    def over(self, came: list[bytes]) -> None:
        """The other ends and takes no more, and these have come: those that are waited for besides never run."""
        self._came = frozenset(came)

    async def make(self, number: int, call: UntypedCall) -> UntypedResult:
        """Makes a call, and gives its result, whose table is the caller's.

        Args:
            number: of the object, among what the other has exported.
            call: whose table is borrowed.

        Raises:
            ArgumentError: something in its table can't go to another machine; nothing was sent.
            Disconnected: the other is lost.
            CallTimeout: it was not sent by its deadline.
            Error: what it was answered, which goes on as it came.
        """
        pause = _SOON
        while True:
            try:
                return await self._make_once(number, call)
            except (_Never, NotSent) as error:
                if isinstance(error, TooLong):
                    raise TooLarge(f"{self._link.other}: the call does not fit into what the engine carries") from None
                if self._link.lost:
                    raise Disconnected(self._words(self._link.lost), ran="no") from None
                if remaining() < pause + _SAYING:
                    # Said here, where it is known: who is cancelled by a deadline knows nothing.
                    raise CallTimeout(f"{call.method}(): it was not sent in time: {error}", ran="no") from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LATER)

    async def _make_once(self, number: int, call: UntypedCall) -> UntypedResult:
        try:
            left = self._leave(call)
        except Stays as error:
            raise await named(error, call.method, partial(self.make, number)) from None
        waiting = _Waiting(self._link.new_id())
        try:
            payload = self._crossing.pay(call.payload, left)
            seconds = remaining()
            deadline = 0 if seconds == math.inf else max(self._link.clock.at(seconds), 1)
            message = Call(number, call.method, payload, left.mentions, deadline, self._client())
            outcome = await self._outcome(message, waiting, max(min(_ANSWERED, seconds), 0.01))
        except (_Never, NotSent, LinkLost, NotTaken) as error:
            self._crossing.take_back(left)
            if isinstance(error, (_Never, NotSent)):
                raise
            if isinstance(error, NotTaken):
                raise Disconnected(f"the machine behind {self._link.other!r} refuses: {error}", ran="no") from None
            raise Disconnected(self._words(str(error)), ran="no") from None
        except BaseException:
            # Given up: the other is told at once, and has it end, or never begin.
            if not self._link.lost:
                self._give_up(waiting.call, left)
            raise
        finally:
            self._crossing.let_go(left)
        try:
            return await self._result(call, outcome)
        finally:
            self._pinging.ended(waiting.call, _size(outcome))

    def _give_up(self, call: bytes, left: Left) -> None:
        self._given_up[call] = left
        self._pinging.given_up(call)

    def _leave(self, call: UntypedCall) -> Left:
        try:
            return self._crossing.leave(call.table, None, f"{call.method}()")
        except TooMany as error:
            raise TooLarge(f"{call.method}(): {error}") from None

    async def _outcome(self, message: Call, waiting: _Waiting, within: float) -> Outcome:
        """What a call came to; it is answered, or told to run, within so many seconds, or in doubt.

        Raises:
            _Never, NotSent, LinkLost, NotTaken: it has not run, and never will.
            Disconnected: it may have.
        """
        self._waiting[waiting.call] = waiting
        try:
            try:
                answer: Outcome | Running = await self._link.ask(
                    Kind.CALL, message, ANSWER_TO_CALL, within=within, number=waiting.call
                )
            except NotGenuine as error:
                raise Disconnected(self._words(str(error))) from None
            except Unanswered:
                waiting.in_doubt = True
                self._pinging.at_once()
            else:
                if not isinstance(answer, Running):
                    return answer
            return await self._wait(waiting)
        finally:
            del self._waiting[waiting.call]

    async def _wait(self, waiting: _Waiting) -> Outcome:
        waiting.told = asyncio.Event()
        while waiting.came is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWERED if waiting.in_doubt else None):
                    await waiting.told.wait()
            if waiting.came is None:
                self._pinging.at_once()
        came, waiting.came = waiting.came, None
        if not isinstance(came, Exception):
            return came
        try:
            raise came
        finally:
            # Its traceback has this frame, which would have it.
            del came

    async def _result(self, call: UntypedCall, outcome: Outcome) -> UntypedResult:
        if isinstance(outcome, Result) and not outcome.table:
            payload = outcome.payload
            # It is here, and nothing else of it is to come: it needs room for no longer than it takes to look for that.
            if isinstance(payload, bytes) and self._budget.has_room(len(payload)):
                return UntypedResult(payload)
        method = method_of(call)
        if isinstance(outcome, Failed):
            raise method.error_for(memoryview(outcome.fault), f"{method.where}, {self._link.other}", FOREVER)
        table: list[object] = []
        if len(outcome.table) > TABLE_MOST:
            self._crossing.turn_away(Arrived(outcome.table))
            raise ProtocolError(
                f"{method.where}, {self._link.other}: {len(outcome.table):,} entries in its result's table, and a "
                f"bridge's maximum is {TABLE_MOST:,}"
            )
        arrived = self._crossing.arrive(outcome.table)
        try:
            with Spending(self._budget) as spending, Spending(self._copying) as copying:
                await self._crossing.enter(arrived, table, copying)
                payload = await self._crossing.receive(outcome.payload, self._max_bytes, spending)
            return UntypedResult(payload, table)
        except BaseException as error:
            self._crossing.turn_away(arrived)
            for thing in table:
                if isinstance(thing, Dataspace):
                    thing.close()
            where = f"{method.where}, {self._link.other}: its result did not come whole: "
            if isinstance(error, (LinkLost, NotTaken, EngineError, NotGenuine)):
                raise Disconnected(f"{where}{error}") from None
            if isinstance(error, (NoRoom, TooLarge)):
                raise TooLarge(f"{where}{error}") from None
            raise

    def _done(self, _label: Label, done: Done) -> Taken:
        waiting = self._waiting.get(done.call)
        if waiting is not None:
            waiting.come(done.outcome)
        return Taken()

    def _lose(self, why: str) -> None:
        for call, waiting in self._waiting.items():
            never = self._came is not None and call not in self._came
            waiting.come(_Never() if never else Disconnected(self._words(why)))

    def _client(self) -> int:
        """What stands for who calls: the other has each of them leave room for all others, and learns no more."""
        who = caller()
        return hash((self._salt, who.pid, who.uid)) & 0xFFFFFFFF

    def _words(self, why: str) -> str:
        return f"the machine behind {self._link.other!r} is lost: {why}"


def _size(outcome: Outcome) -> int:
    """Bytes that the other keeps of it, about."""
    if isinstance(outcome, Failed):
        return len(outcome.fault)
    if isinstance(outcome.payload, Long):
        return outcome.payload.size
    return len(outcome.payload) + 100 * len(outcome.table)
