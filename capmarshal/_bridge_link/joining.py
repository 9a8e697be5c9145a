"""How two bridges find each other by a token: who has one says hello, is told the time there, and joins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from capmarshal._bridge_engine.engine import Engine, NotSent, Stop, Unanswered

from .clocks import TheirClock, lease_from, now
from .link import Link, NotTaken
from .messages import ANSWER, REFUSED, VERSION, Hello, HelloAnswer, Join, Joined, Kind, Refused, read, written
from .replays import Once
from .sealing import CALL_BYTES, LEASE_BYTES, Direction, Label, NotGenuine, Seal
from .tokens import KEY_BYTES, NAME_BYTES, Token, check_exporter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    JoinedBy: TypeAlias = Callable[[Link, Join], Awaitable[None]]

M = TypeVar("M")

# Seconds that a question has for its answer.
_WITHIN = 2.0

# Questions to join that are remembered, until they have expired: of one token.
_JOINS_MOST = 10_000

_NO_LEASE = bytes(LEASE_BYTES)


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
    """
    asking = _Asking(engine, token)
    answer = await asking.hello()
    clock = TheirClock(answer.clock)
    link_token = Token(token.exporter, os.urandom(NAME_BYTES), os.urandom(KEY_BYTES))
    link = Link(engine, link_token, ours=ours, other=token.exporter, made_by_us=True)
    try:
        prepare(link)
        # Served first: who was joined may ask at once.
        await link.serve()
        question = Join(*link_token.parts(), ours, link.lease, link.renew())
        expires = clock.expiry(_WITHIN)
        joined = await asking.ask(Kind.JOIN, question, Joined, lease=answer.instance, expires=expires)
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
    return (await _Asking(engine, token).hello()).instance


class _Asking:
    """Questions that are sealed with a token itself."""

    def __init__(self, engine: Engine, token: Token) -> None:
        self._engine = engine
        self._token = token
        self._asks, self._hears = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)

    async def hello(self) -> HelloAnswer:
        """Asks what time it is there; raises as :func:`join`."""
        return await self.ask(Kind.HELLO, Hello(VERSION), HelloAnswer, lease=_NO_LEASE, expires=0)

    async def ask(self, kind: Kind, question: object, answer: type[M], *, lease: bytes, expires: int) -> M:
        """Asks once; raises as :func:`join`."""
        number = os.urandom(CALL_BYTES)
        body = self._asks.seal(Label(kind, number, lease, expires=expires), written(question))
        come: list[tuple[int, bytes]] = []

        def accept(answer: bytes) -> bool:
            try:
                label, plain = self._hears.open(answer)
            except NotGenuine:
                return False
            if label.call != number or label.kind not in (kind | ANSWER, REFUSED):
                return False
            come.append((label.kind, plain))
            return True

        await self._engine.call(self._token.subject, body, within=_WITHIN, accept=accept)
        came, plain = come[0]
        if came == REFUSED:
            raise NotTaken(read(plain, Refused).words)
        return read(plain, answer)


class Reception:
    """Where the exporter of one token is asked: until it is closed, whoever has the token may join."""

    def __init__(self, engine: Engine, token: Token, instance: bytes, *, joined: JoinedBy) -> None:
        """Not served yet.

        Args:
            engine: that carries it.
            token: which.
            instance: of the exporter: another one after each of its starts.
            joined: what is told of who joins: it prepares the link, which is then its own.
        """
        self._engine = engine
        self._token = token
        # Of this token alone: whoever asks by it so often that no more is taken keeps nobody from another one.
        self._instance = Once(instance, lease_from(now()), _JOINS_MOST)
        self._joined = joined
        self._takes, self._answers = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)
        self._stop: Stop | None = None

    async def open(self) -> None:
        """From here on."""
        self._stop = await self._engine.serve(self._token.subject, self._serve)

    async def close(self) -> None:
        """Nobody can join by it any more; who has joined has."""
        if self._stop is not None:
            await self._stop()

    async def _serve(self, body: bytes) -> bytes:
        try:
            label, plain = self._takes.open(body)
            if label.kind == Kind.HELLO:
                read(plain, Hello)
                shown = now()
                self._instance.renew(lease_from(shown))
                return self._answer(label, HelloAnswer(VERSION, shown, self._instance.lease))
            if label.kind != Kind.JOIN:
                return b""
            self._instance.take(label, now())
        except NotGenuine:
            return b""
        try:
            return self._answer(label, await self._join(read(plain, Join)))
        except (NotTaken, NotGenuine, NotSent, Unanswered) as error:
            return self._answers.seal(Label(REFUSED, label.call, _NO_LEASE), written(Refused(str(error))))

    async def _join(self, join: Join) -> Joined:
        try:
            check_exporter(join.name)
            token = Token(self._token.exporter, join.link_name, join.link_key)
        except ValueError as error:
            raise NotTaken(str(error)) from None
        if len(join.lease) != LEASE_BYTES:
            raise NotTaken("a lease of another length")
        link = Link(self._engine, token, ours=self._token.exporter, other=join.name, made_by_us=False)
        link.joined(join.lease, join.clock)
        try:
            await self._joined(link, join)
        except BaseException as error:
            await link.close(f"it was not joined: {error}")
            raise
        return Joined(link.lease, link.renew())

    def _answer(self, label: Label, answer: object) -> bytes:
        return self._answers.seal(Label(label.kind | ANSWER, label.call, self._instance.lease), written(answer))
