"""All other bridges that one bridge has links with: those that it has joined, and those that have joined it."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from capmarshal._bridge_engine.engine import EngineClosed

from .partner import Partner
from .shares import Pools, Shares
from .turns import Doors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from capmarshal import Capability, aio
    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.messages import Open

    from .exports import Root
    from .limits import LinkLimits

# Bridges that may have joined this one.
_LINKS_MOST = 2_000


class Partners:
    """Each as long as its link is not lost.

    Attributes:
        joined: those that this bridge has joined, by their names.
    """

    def __init__(
        self,
        entrypoint: aio.Entrypoint,
        limits: LinkLimits,
        opening: Callable[[Link, Open], Awaitable[tuple[Capability, Root]]],
    ) -> None:
        """None yet.

        Args:
            entrypoint: that serves what others export to this machine; borrowed.
            limits: what each link may cost.
            opening: what gives what a token of this machine's stands for, to who asks by a link.
        """
        self.joined: dict[str, Partner] = {}
        self._entrypoint = entrypoint
        self._limits = limits
        self._opening = opening
        self._pools = Pools(limits, _LINKS_MOST)
        self._doors = Doors()
        # Of who has joined with a token, by its subject, and of whom this bridge has joined, by the name.
        self._shares: weakref.WeakValueDictionary[str, Shares] = weakref.WeakValueDictionary()
        self._all: set[Partner] = set()
        self._ended = False

    def make(self, link: Link, who: str) -> Partner:
        """One more.

        Args:
            link: with it; taken.
            who: by what it is told from others: what all that are the same may cost together is shared.

        Raises:
            EngineClosed: there are no more of them.
        """

        async def opening(question: Open) -> tuple[Capability, Root]:
            return await self._opening(link, question)

        if self._ended:
            raise EngineClosed("the bridge has ended")
        shares = self._shares.get(who)
        if shares is None:
            shares = self._shares[who] = Shares(self._pools)
        partner = Partner(link, self._entrypoint, self._limits, shares, self._doors, opening)
        link.at_loss(lambda _why: self._lost(partner))
        self._all.add(partner)
        return partner

    def __iter__(self) -> Iterator[Partner]:
        """Those that there are now: others may come and go meanwhile."""
        return iter(tuple(self._all))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many things each of them, by its name, has of this machine's, and this machine of its."""
        counts: dict[str, dict[str, int]] = {}
        for partner in self._all:
            # Each may have joined the other.
            before = counts.get(partner.link.other, {})
            counts[partner.link.other] = {what: count + before.get(what, 0) for what, count in partner.counts.items()}
        return counts

    def take_no_more(self) -> None:
        """No link is made from here on."""
        self._ended = True

    async def drain(self) -> None:
        """Has them take no more calls, and returns when those that they have made are over."""
        await asyncio.gather(*(partner.drain() for partner in self))

    async def close(self) -> None:
        """Ends all links."""
        await asyncio.gather(*(partner.close("the bridge was closed") for partner in self))

    def _lost(self, partner: Partner) -> None:
        self._all.discard(partner)
        if self.joined.get(partner.link.other) is partner:
            del self.joined[partner.link.other]
