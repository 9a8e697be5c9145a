"""Calls that the other bridge makes: each runs once at most, by what it was given of this machine's capabilities.

One that ends soon is answered at once; of another the other is told that it runs, and then, until it has heard it, how
it ended.  What it came to is kept until the other says that it wants to know no more of it, or is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from capmarshal import (
    ArgumentError,
    Capability,
    Dataspace,
    StaleCapability,
    TooLarge,
    UntypedCall,
    aio,
    timeout,
)
from capmarshal._protocol import faults

from .clocks import now
from .crossing import Left
from .engine import EngineError
from .exports import TooMany
from .imports import TooManyImports
from .link import LinkLost, NotTaken
from .messages import Call, Done, Failed, Kind, Outcome, Result, Running, State, Taken
from .sealing import NotGenuine
from .signals import TooManySignals

if TYPE_CHECKING:
    from .crossing import Crossing
    from .exports import Exports
    from .link import Link
    from .sealing import Label

_logger = logging.getLogger("capmarshal")

# Seconds in which a call is answered at once, if it ends by then.
_AT_ONCE = 0.25

_NANOSECONDS = 1_000_000_000


@dataclass(eq=False)
class _Incoming:
    """One of them.

    Attributes:
        task: in which it runs.
        left: what its result has mentioned.
    """

    task: asyncio.Task[Outcome]
    left: Left = field(default_factory=Left)


class IncomingCalls:
    """All of one link."""

    def __init__(self, link: Link, exports: Exports, crossing: Crossing, *, most: int, max_bytes: int) -> None:
        """None yet, and so many at most; all are borrowed; arguments have so many bytes at most."""
        self._link = link
        self._exports = exports
        self._crossing = crossing
        self._most = most
        self._max_bytes = max_bytes
        self._calls: dict[bytes, _Incoming] = {}
        link.answer(Kind.CALL, self._called)
        link.has_come = self._has_come
        link.at_loss(self._lose)

    def states(self, asked: list[bytes]) -> list[State]:
        """What has become of calls; those that have not come never will be taken."""
        return [self._state(call) for call in asked]

    def ended(self, call: bytes) -> None:
        """The other has heard its outcome."""
        incoming = self._calls.pop(call, None)
        if incoming is not None:
            self._crossing.let_go(incoming.left)

    def given_up(self, call: bytes) -> None:
        """The other wants to know no more of it: it is cancelled if it runs, and never taken if it has not come."""
        incoming = self._calls.pop(call, None)
        if incoming is None:
            self._link.bar(Kind.CALL, call)
            return
        incoming.task.cancel()
        self._crossing.take_back(incoming.left)

    def __len__(self) -> int:
        return len(self._calls)

    def _state(self, call: bytes) -> State:
        if call in self._calls:
            return State.RUNNING
        never = self._link.bar(Kind.CALL, call)
        if never is None:
            # Not to be said now: it is asked for again.
            return State.RUNNING
        return State.NEVER if never else State.FORGOTTEN

    def _has_come(self, label: Label) -> bool:
        return label.kind == Kind.CALL and label.call in self._calls

    async def _called(self, label: Label, call: Call) -> Outcome | Running:
        if len(self._calls) >= self._most:
            raise NotTaken(
                f"{self._most:,} calls of that bridge run or wait to be heard of, which is as many as may be"
            )
        left = Left()
        task = self._link.adopt(asyncio.create_task(self._run(call, left)))
        self._calls[label.call] = _Incoming(task, left)
        await asyncio.wait([task], timeout=_AT_ONCE)
        if task.done() and not task.cancelled():
            return task.result()
        if not self._link.lost:
            self._link.run(self._tell(label.call, task))
        return Running()

    async def _tell(self, call: bytes, task: asyncio.Task[Outcome]) -> None:
        """Tells the other when it has ended."""
        await asyncio.wait([task])
        if not task.cancelled():
            with contextlib.suppress(LinkLost, NotTaken):
                await self._link.insist(Kind.DONE, Done(call, task.result()), Taken)

    async def _run(self, call: Call, left: Left) -> Outcome:
        table: list[Any] = []
        try:
            return await self._forward(call, table, left)
        except Exception as error:  # noqa: BLE001 - all of them are told to who called
            return Failed(faults.encode(_fault(error, call)))
        finally:
            for thing in table:
                if isinstance(thing, Dataspace):
                    thing.close()

    async def _forward(self, call: Call, table: list[Any], left: Left) -> Outcome:
        await self._crossing.enter(call.table, table)
        export = self._exports.at(call.object)
        if export is None or not isinstance(export.thing, Capability):
            raise StaleCapability("the object is not there any more: released, or its token was revoked")
        payload = await self._crossing.receive(call.payload, self._max_bytes)
        seconds = None
        if call.deadline:
            seconds = max(call.deadline - now(), 0) / _NANOSECONDS
        with timeout(seconds):
            result = await aio.forward(UntypedCall(call.method, payload, table), to=export.thing)
        try:
            made = self._crossing.leave(result.table, export.root, f"{call.method}(), result")
        finally:
            for thing in result.table:
                # Lent, if it was, by a descriptor of the lender's own.
                if not isinstance(thing, Capability) and hasattr(thing, "close"):
                    thing.close()
        left.mentions, left.exported, left.lent = made.mentions, made.exported, made.lent
        return Result(self._crossing.pay(result.payload, left), left.mentions)

    def _lose(self, _why: str) -> None:
        for incoming in self._calls.values():
            incoming.task.cancel()
        self._calls.clear()


def _fault(error: Exception, call: Call) -> faults.Fault:
    """What the caller is told."""
    if isinstance(error, (TooMany, TooManyImports, TooManySignals)):
        error = TooLarge(str(error))
    if isinstance(error, (LinkLost, EngineError, NotTaken, NotGenuine)):
        error = ArgumentError(f"{call.method}(): an argument was not fetched: {error}")
    found = faults.carried_by(error) or faults.of_call(error)
    if found is None:
        _logger.error("bridge: %s() could not be forwarded", call.method[:100], exc_info=error)
        found = faults.raised(error, ())
    return found
