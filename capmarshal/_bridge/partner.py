"""The other bridge of a link, and all that the two have of each other's: put together, and ended when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._bridge_link import lines
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.link import LinkLost
from capmarshal._bridge_link.messages import Bye, Fetch, Fetched, Kind, Ping, Ring, State, Taken

from .budget import Budget
from .crossing import Crossing
from .exports import Exports
from .imports import Imports
from .incoming_calls import IncomingCalls
from .lending import ChunkRefused, Lender
from .openings import Openings
from .outgoing_calls import OutgoingCalls
from .pinging import Pinging
from .shares import Part
from .signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from capmarshal import UntypedCall, UntypedResult, aio
    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.sealing import Label

    from .exports import Root
    from .limits import LinkLimits
    from .openings import Opening
    from .shares import Shares
    from .turns import Doors

_logger = logging.getLogger("capmarshal")

# Seconds: in which a chunk comes, or is asked for again; and the answer to a farewell.
_FETCHED = 5.0
_BYE = 0.5


class Partner:
    """One of them.

    Attributes:
        link: with it.
        shares: what it may cost this bridge by all its links.
        crossing: the border that what it is told of, and tells, crosses.
        openings: by which tokens are asked for.
    """

    def __init__(
        self,
        link: Link,
        entrypoint: aio.Entrypoint,
        limits: LinkLimits,
        shares: Shares,
        doors: Doors,
        opening: Opening,
    ) -> None:
        """Nothing is shared with it yet.

        Args:
            link: not joined yet, or just so; taken.
            entrypoint: that serves what it exports to this machine; borrowed.
            limits: what it may cost this one by this link.
            shares: likewise by all its links; borrowed.
            doors: that all others call through; borrowed.
            opening: what gives what a token of this machine's stands for.
        """
        self.link = link
        self.shares = shares
        self._has_joined = False
        descriptors = Part(shares.descriptors)
        self._exports = Exports(limits.exports, shares, doors)
        self._lender = Lender()
        self._pinging = Pinging(link, asked=self._asked, gone=self._gone)
        released = self._pinging.released
        self._imports = Imports(
            entrypoint,
            label=link.other,
            calling=self._call,
            released=released,
            most=limits.imports,
            descriptors=descriptors,
        )
        self._signals = Signals(
            entrypoint, ringing=self._ring, released=released, most=limits.signals, descriptors=descriptors
        )
        self.crossing = Crossing(
            self._exports,
            self._imports,
            self._signals,
            self._lender,
            asking=self._fetch,
            refused=released,
            max_dataspace=limits.dataspace,
            descriptors=descriptors,
        )
        at_a_time = limits.bytes_at_a_time
        # Of each way their own: a call holds its arguments while it runs, and may wait for the results of others.
        arguments = Budget("dataspaces among arguments", limits.dataspace, Part(shares.copying))
        results = Budget("dataspaces among results", limits.dataspace, Part(shares.copying))
        came = Budget("results that have come", at_a_time, Part(shares.came))
        kept = Budget("arguments and results", at_a_time, Part(shares.kept))
        self._outgoing = OutgoingCalls(
            link, self.crossing, self._pinging, copying=results, budget=came, max_bytes=limits.bytes
        )
        self._incoming = IncomingCalls(
            link,
            self._exports,
            self.crossing,
            copying=arguments,
            revoke=self.revoke,
            budget=kept,
            most=limits.calls,
            max_bytes=limits.bytes,
            descriptors=descriptors,
            remembered=Part(shares.calls),
            bridge=shares,
        )
        self.openings = Openings(
            link,
            self._exports,
            self._imports,
            self._pinging,
            opening=opening,
            turns=doors.openings,
            bridge=shares,
        )
        link.answer(Kind.FETCH, self._fetched)
        link.answer(Kind.RING, self._rung)
        link.answer(Kind.BYE, self._told_bye)
        self._pinging.hear(self._heard)
        # Each by itself: where one of them has a fault, the others are told all the same.
        for lose in (self._imports.lose, self._signals.lose, self._exports.clear, self.crossing.lose):
            link.at_loss(partial(_told, lose))
        link.at_loss(self._part)
        link.at_loss(self._leave)

    def begin(self) -> None:
        """It has joined, or was joined."""
        lines.links.log(logging.INFO, "bridge: a link with %s has begun", self.link.other)
        self.link.run(self._pinging.run(self._outgoing.told))

    def joins(self) -> bool:
        """It has made the link, and not this bridge; whether it may have one more."""
        self._has_joined = self.shares.links.take()
        return self._has_joined

    async def drain(self) -> None:
        """Takes no more calls, and returns when those that it has made are over."""
        await self._incoming.drain()

    async def close(self, why: str) -> None:
        """Ends the link, and tells it so."""
        if not self.link.lost:
            with contextlib.suppress(Exception):
                await self.link.ask(Kind.BYE, Bye(self._incoming.end()), Taken, within=_BYE)
        await self.link.close(why)

    def revoke(self, root: Root) -> None:
        """What was reached by a token that is revoked can't be called any more."""
        for export in self._exports.of(root):
            self._exports.remove(export)
            self._pinging.gone(export.number, root.revoked)

    @property
    def counts(self) -> dict[str, int]:
        """How many things it has of this machine's, and this machine of its."""
        return {
            "exported": len(self._exports),
            "imported": len(self._imports),
            "lent": len(self._lender),
            "calls": len(self._incoming),
        }

    # What is asked -------------------------------------------------------------------------------------------------

    async def _call(self, number: int, call: UntypedCall) -> UntypedResult:
        return await self._outgoing.make(number, call)

    async def _ring(self, number: int) -> None:
        try:
            await self.link.insist(Kind.RING, Ring(number), Taken)
        except (LinkLost, NotTaken) as error:
            _logger.debug("bridge: a signal to %s was lost: %s", self.link.other, error)

    async def _fetch(self, number: int, offset: int, size: int) -> bytes:
        question = Fetch(number, offset, size)
        return (await self.link.ask(Kind.FETCH, question, Fetched, within=_FETCHED)).data

    def _asked(self) -> Iterable[bytes]:
        self._imports.tick()
        return self._outgoing.in_doubt()

    def _gone(self) -> Iterable[int]:
        gone = list(self._exports.gone())
        for export in gone:
            self._exports.remove(export)
        return [export.number for export in gone]

    # What is answered ----------------------------------------------------------------------------------------------

    def _fetched(self, _label: Label, fetch: Fetch) -> Fetched:
        try:
            return Fetched(self._lender.chunk(fetch.number, fetch.offset, fetch.size))
        except ChunkRefused as error:
            raise NotTaken(str(error)) from None

    def _rung(self, _label: Label, ring: Ring) -> Taken:
        export = self._exports.at(ring.number)
        if export is not None:
            export.ring()
        return Taken()

    def _told_bye(self, _label: Label, bye: Bye) -> Taken:
        self._outgoing.over(bye.came)
        # Answered before: what is lost answers nobody.
        asyncio.get_running_loop().call_soon(self.link.lose, "the other bridge has ended it")
        return Taken()

    def _heard(self, ping: Ping, states: list[State]) -> Iterator[None]:
        for call in ping.asked:
            states.append(self._incoming.state(call))
            yield
        for call in ping.ended:
            self.openings.ended(call)
            self._incoming.ended(call)
            yield
        for call in ping.given_up:
            self.openings.given_up(call)
            self._incoming.given_up(call)
            yield
        for number, mentions in ping.released:
            self._exports.release(number, mentions)
            yield
        for number, why in ping.gone:
            self._imports.gone(number, why)
            yield

    def _part(self, _why: str) -> None:
        if (other := self.crossing.other) is not None and other.other is self.crossing:
            other.other = None

    def _leave(self, _why: str) -> None:
        if self._has_joined:
            self._has_joined = False
            self.shares.links.give_back()


def _told(lose: Callable[[], None], _why: str) -> None:
    lose()
