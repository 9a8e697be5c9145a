"""Reaching what tokens of other bridges stand for: each bridge is joined once, and again when it was lost."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import capmarshal as cm
from capmarshal._bridge_engine.engine import EngineError, NobodyThere, NotAllowed, Unanswered
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.joining import instance_of, join
from capmarshal._bridge_link.link import LinkLost
from capmarshal._bridge_link.sealing import NotGenuine

from .pairing import pair

if TYPE_CHECKING:
    from capmarshal import Capability
    from capmarshal._bridge_engine.engine import Engine
    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.tokens import Token

    from .partner import Partner
    from .partners import Partners

# Seconds in which nodes tell each other who serves what.
_KNOWN = 1.0


class NotReached(cm.Disconnected):
    """What a token stands for can't be reached: its bridge is not there, refuses, or does not answer."""


class _Joining:
    """Joining one other bridge: one at a time, and who waits for that is told of its silence, too.

    Attributes:
        turn: of who joins it.
        wanted: how many want it.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.wanted = 0
        self._asked, self._words = -math.inf, ""

    def check(self, since: float) -> None:
        """Raises Unanswered where it was asked since then, and was silent."""
        if since <= self._asked:
            raise Unanswered(self._words)

    def was_silent(self, asked: float, error: Unanswered) -> None:
        """It was asked then, and has not answered."""
        self._asked, self._words = asked, str(error)


class Reaching:
    """By one bridge."""

    def __init__(self, engine: Engine, name: str, partners: Partners) -> None:
        """Of that name; the engine and the partners are borrowed."""
        self._engine = engine
        self._name = name
        self._partners = partners
        self._joining: dict[str, _Joining] = {}

    async def reach(self, token: Token, *, anew: str) -> Capability:
        """What a token of another bridge's stands for, by a grant of its own with that label if ``anew`` is one.

        Raises:
            NotReached: it can't be reached.
            TableFull: no room for its two descriptors.
        """
        clock = asyncio.get_running_loop().time
        until, pause = clock() + _KNOWN, 0.02
        while True:
            try:
                return await self._reach(token, anew=anew)
            except NobodyThere as error:
                # What has just begun to be served, a token or the link itself, is not known at all nodes yet.
                if clock() + pause > until:
                    raise NotReached(f"{token.exporter!r} can't be reached: {error}", ran="no") from None
            await asyncio.sleep(pause)
            pause *= 2

    async def _reach(self, token: Token, *, anew: str) -> Capability:
        """As reach(), without waiting until nodes have told each other; raises NobodyThere for that."""
        again = True
        while True:
            partner: Partner | None = None
            try:
                partner = await self._partner(token)
                return await partner.openings.ask(token, anew=anew)
            except LinkLost as error:
                # It was lost meanwhile, and nobody had told.
                if not again:
                    raise NotReached(f"{token.exporter!r} was lost: {error}", ran="no") from None
                again = False
            except NotTaken as error:
                raise NotReached(f"{token.exporter!r} refuses: {error}", ran="no") from None
            except (EngineError, NotGenuine) as error:
                if not again or partner is None or not await self._was_started_again(partner, token):
                    if isinstance(error, NobodyThere):
                        raise
                    raise NotReached(f"{token.exporter!r} can't be reached: {error}", ran="no") from None
                again = False

    async def _was_started_again(self, partner: Partner, token: Token) -> bool:
        """Whether another start of a bridge serves its token than the one that was joined, which is lost by that."""
        try:
            instance = await instance_of(self._engine, token)
        except (EngineError, NotTaken, NotGenuine):
            return False
        if instance == partner.link.instance:
            return False
        partner.link.lose("the other bridge was started again")
        return True

    async def _partner(self, token: Token) -> Partner:
        joining = self._joining.setdefault(token.exporter, _Joining())
        joining.wanted += 1
        since = asyncio.get_running_loop().time()
        try:
            async with joining.turn:
                partner = self._partners.joined.get(token.exporter)
                if partner is None or partner.link.lost:
                    joining.check(since)
                    partner = await self._join(token, joining)
                return partner
        finally:
            joining.wanted -= 1
            if not joining.wanted:
                del self._joining[token.exporter]

    async def _join(self, token: Token, joining: _Joining) -> Partner:
        made: list[Partner] = []

        def prepare(link: Link) -> None:
            made.append(self._partners.make(link, token.exporter))

        asked = asyncio.get_running_loop().time()
        try:
            await join(self._engine, token, ours=self._name, prepare=prepare)
        except Unanswered as error:
            # What is not allowed is so of one subject alone.
            if not isinstance(error, NotAllowed):
                joining.was_silent(asked, error)
            raise
        (partner,) = made
        if partner.link.lost:
            raise LinkLost(partner.link.lost)
        self._partners.joined[token.exporter] = partner
        partner.begin()
        # The other may have joined this one before.  Asked also where who waits for it gives up.
        pairing = [
            partner.link.run(pair(partner, came))
            for came in self._partners
            if came.link.other == token.exporter and came is not partner
        ]
        if pairing:
            await asyncio.wait(pairing)
        return partner
