"""What a bridge offers by tokens of its own, and who joins it by one of them."""

from __future__ import annotations

import asyncio
import hmac
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import capmarshal as cm
from capmarshal import Forwarder, aio
from capmarshal._bridge_engine.engine import EngineClosed
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.reception import Reception
from capmarshal._bridge_link.sealing import LEASE_BYTES

from .exports import Root

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal import Capability, UntypedCall, UntypedResult
    from capmarshal._bridge_engine.engine import Engine
    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.messages import Open
    from capmarshal._bridge_link.tokens import Token

    Source: TypeAlias = Callable[[], Awaitable[Capability]]

# Seconds that a service at a path has to hand over what is asked for.
_CONNECTING = 3.0

_NOTHING = "there is no such token, or it was revoked"


class Offer(Root):
    """What one token stands for.

    Attributes:
        token: that one.
        source: gives it, to each who asks.
        reception: where it is asked for.
    """

    def __init__(self, token: Token, source: Source, reception: Reception) -> None:
        self.token = token
        self.source = source
        self.reception = reception
        self._passed_on: weakref.WeakSet[_PassedOn] = weakref.WeakSet()

    def pass_on(self, thing: Capability) -> Forwarder:
        """An object that stands for it, to be granted to a client of this machine's."""
        made = _PassedOn(thing)
        self._passed_on.add(made)
        return made

    @property
    def passed_on(self) -> list[Forwarder]:
        """Those of them that are granted still."""
        return list(self._passed_on)


class _PassedOn(Forwarder):
    """What is revoked with its token, whoever has it; what is behind it may be had by other ways."""

    def __init__(self, thing: Capability) -> None:
        self._thing = thing

    async def forward(self, call: UntypedCall) -> UntypedResult:
        return await aio.forward(call, to=self._thing)


class Offers:
    """All of one bridge."""

    def __init__(self, engine: Engine, was_joined: Callable[[str, Link], Awaitable[None]]) -> None:
        """None yet.

        Args:
            engine: that carries what is asked; borrowed.
            was_joined: is told of a link with who joins by a token: its subject.
        """
        self._engine = engine
        self._was_joined = was_joined
        # Another one after each start.
        self._instance = os.urandom(LEASE_BYTES)
        self._by_subject: dict[str, Offer] = {}
        self._ended = False

    async def make(self, token: Token, what: object) -> None:
        """One more.

        Raises:
            TypeError: there is nothing of that sort to be offered.
            ValueError: that token is in use; or it was revoked before all knew of it.
            EngineError: the bridge has ended, or the engine does not permit it.
        """
        self._check_open()
        source = _source(what)
        if token.subject in self._by_subject:
            raise ValueError("that token stands for something already")
        joined = partial(self._was_joined, token.subject)
        offer = Offer(token, source, Reception(self._engine, token, self._instance, joined=joined))
        self._by_subject[token.subject] = offer
        try:
            await offer.reception.open()
            self._check_open()
            if self._by_subject.get(token.subject) is not offer:
                raise ValueError("that token was revoked while it was being exported")
        except BaseException:
            # Another one may stand there since that was revoked.
            if self._by_subject.get(token.subject) is offer:
                del self._by_subject[token.subject]
            await offer.reception.close()
            raise

    def take_back(self, token: Token) -> Offer | None:
        """The one of a token, if there is one: it is none any more, and the caller closes where it is asked for."""
        return self._by_subject.pop(token.subject, None)

    async def own(self, token: Token) -> tuple[Capability, Offer]:
        """What a token of this bridge's own stands for.

        Raises:
            NotTaken: nothing; or that can't be reached.
        """
        offer = self._by_subject.get(token.subject)
        if offer is None or offer.token != token:
            raise NotTaken(_NOTHING)
        return await self._given(offer), offer

    async def opened(self, link: Link, question: Open) -> tuple[Capability, Root]:
        """What a token stands for that is asked for by a link.

        Raises:
            NotTaken: nothing; or that can't be reached.
        """
        offer = self._by_subject.get(question.subject)
        if offer is None or not hmac.compare_digest(offer.token.proof(link.token), question.proof):
            raise NotTaken(_NOTHING)
        return await self._given(offer), offer

    async def close(self) -> None:
        """None any more; who has joined has."""
        self._ended = True
        offers = tuple(self._by_subject.values())
        self._by_subject.clear()
        # Beside each other: a node that stands still has its time with each of them.
        await asyncio.gather(*(offer.reception.close() for offer in offers))

    async def _given(self, offer: Offer) -> Capability:
        try:
            thing = await offer.source()
        except (cm.Error, OSError) as error:
            raise NotTaken(f"what the token stands for is not there: {error}") from None
        if self._by_subject.get(offer.token.subject) is not offer:
            raise NotTaken("the token was revoked")
        return thing

    def _check_open(self) -> None:
        if self._ended:
            raise EngineClosed("the bridge has ended")


def _source(what: object) -> Source:
    if isinstance(what, str | os.PathLike):
        path: Any = what

        async def connected() -> Capability:
            return await aio.connect(path, timeout=_CONNECTING)

        return connected
    capability = what if isinstance(what, cm.Capability) else cm.capability(what)  # type: ignore[arg-type]  # refused

    async def held() -> Capability:
        return capability

    return held
