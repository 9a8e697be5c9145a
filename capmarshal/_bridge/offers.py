"""What a bridge offers by tokens of its own, and who joins it by one of them."""

from __future__ import annotations

import hmac
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import capmarshal as cm
from capmarshal import aio
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.reception import Reception
from capmarshal._bridge_link.sealing import LEASE_BYTES

from .exports import Root

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal import Capability
    from capmarshal._bridge_engine.engine import Engine
    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.messages import Open
    from capmarshal._bridge_link.tokens import Token

    Source: TypeAlias = Callable[[], Awaitable[Capability]]

# Seconds that a service at a path has to hand over what is asked for.
_CONNECTING = 3.0


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

    async def make(self, token: Token, what: object) -> None:
        """One more.

        Raises:
            TypeError: there is nothing of that sort to be offered.
            ValueError: that token is in use.
            EngineError: there is no engine any more, or it does not permit it.
        """
        source = _source(what)
        if token.subject in self._by_subject:
            raise ValueError("that token stands for something already")
        joined = partial(self._was_joined, token.subject)
        offer = Offer(token, source, Reception(self._engine, token, self._instance, joined=joined))
        self._by_subject[token.subject] = offer
        try:
            await offer.reception.open()
        except BaseException:
            self._by_subject.pop(token.subject, None)
            raise

    def take_back(self, token: Token) -> Offer | None:
        """The one of a token, if there is one: it is none any more, and the caller closes where it is asked for."""
        return self._by_subject.pop(token.subject, None)

    async def own(self, token: Token) -> Capability:
        """What a token of this bridge's own stands for.

        Raises:
            NotTaken: nothing; or that can't be reached.
        """
        offer = self._by_subject.get(token.subject)
        if offer is None or offer.token != token:
            raise NotTaken("there is no such token, or it was revoked")
        return await _given(offer)

    async def opened(self, link: Link, question: Open) -> tuple[Capability, Root]:
        """What a token stands for that is asked for by a link.

        Raises:
            NotTaken: nothing; or that can't be reached.
        """
        offer = self._by_subject.get(question.subject)
        if offer is None or not hmac.compare_digest(offer.token.proof(link.token), question.proof):
            raise NotTaken("there is no such token, or it was revoked")
        thing = await _given(offer)
        if self._by_subject.get(question.subject) is not offer:
            raise NotTaken("the token was revoked")
        return thing, offer

    async def close(self) -> None:
        """None any more; who has joined has."""
        for offer in tuple(self._by_subject.values()):
            await offer.reception.close()
        self._by_subject.clear()


async def _given(offer: Offer) -> Capability:
    try:
        return await offer.source()
    except (cm.Error, OSError) as error:
        raise NotTaken(f"what the token stands for is not there: {error}") from None


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
