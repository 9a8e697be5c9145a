"""How a bridge finds another one by a token: it says hello, is told the time there, and joins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from .agreeing import Half
from .asking import Asked
from .clocks import TheirClock
from .link import Link
from .messages import VERSION, Hello, HelloAnswer, Join, Joined, Kind
from .sealing import CALL_BYTES, LEASE_BYTES, NO_LEASE, Direction, Label, NotGenuine, Seal
from .tokens import NAME_BYTES, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._bridge_engine.engine import Engine

M = TypeVar("M")

# Seconds that a question has for its answer.
_WITHIN = 2.0


async def join(engine: Engine, token: Token, *, ours: str, prepare: Callable[[Link], None]) -> Link:
    """Joins the exporter of a token.

    Args:
        engine: that carries it.
        token: whose.
        ours: the name of this bridge.
        prepare: what gives the link its answers, before it is served.

    Returns:
        The link; it is the caller's.

    Raises:
        NotSent: nobody serves that token: its exporter is not there, or has revoked it.
        Unanswered: it did not answer.
        NotTaken: it has refused this one, and says why.
        NotGenuine: it is a bridge of another version.
        LinkLost: it was lost before it had answered.
    """
    questions = _Questions(engine, token)
    answer = await questions.hello()
    clock = TheirClock(answer.clock)
    half, name = Half(), os.urandom(NAME_BYTES)
    link_token = Token(token.exporter, name, half.key(answer.half, token, name))
    link = Link(engine, link_token, ours=ours, other=token.exporter, made_by_us=True)
    try:
        prepare(link)
        # Served first: who was joined may ask at once.
        await link.serve()
        question = Join(name, half.public, answer.half, ours, link.lease, link.renew())
        expires = clock.expiry(_WITHIN)
        joined = await questions.ask(Kind.JOIN, question, Joined, lease=answer.instance, expires=expires)
        if len(joined.lease) != LEASE_BYTES:
            raise NotGenuine("a bridge of another version, or a fault in one")
        link.joined(joined.lease, joined.clock)
    except BaseException as error:
        await link.close(f"it was not joined: {error}")
        raise
    link.instance = answer.instance
    return link


async def instance_of(engine: Engine, token: Token) -> bytes:
    """Which start of a token's exporter serves it now: another one than was joined, once that was started again.

    Raises:
        NotSent, Unanswered, NotTaken, NotGenuine: as from :func:`join`.
    """
    return (await _Questions(engine, token).hello()).instance


class _Questions:
    """Those that are sealed with a token itself."""

    def __init__(self, engine: Engine, token: Token) -> None:
        self._engine = engine
        self._token = token
        self._asks, self._hears = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)

    async def hello(self) -> HelloAnswer:
        """Asks what time it is there; raises as :func:`join`."""
        return await self.ask(Kind.HELLO, Hello(VERSION), HelloAnswer, lease=NO_LEASE, expires=0)

    async def ask(self, kind: Kind, question: object, answer: type[M], *, lease: bytes, expires: int) -> M:
        """Asks once; raises as :func:`join`."""
        label = Label(kind, os.urandom(CALL_BYTES), lease, expires=expires)
        asked = Asked(label, question, self._asks, self._hears)
        await self._engine.call(self._token.subject, asked.body, within=_WITHIN, accept=asked.accept)
        return asked.answer(answer)
