"""Where the exporter of a token is asked by it: who says hello is told the time here, and may join."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from capmarshal._bridge_engine.engine import Engine, NotSent, Stop, Unanswered

from . import lines
from .agreeing import Halves
from .asking import Answers, NotTaken
from .clocks import lease_from, now
from .link import Link, LinkLost
from .messages import VERSION, Hello, HelloAnswer, Join, Joined, Kind, read
from .replays import Once
from .sealing import LEASE_BYTES, NO_LEASE, Direction, NotGenuine, Seal, of_lease
from .tokens import Token, check_exporter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    JoinedBy: TypeAlias = Callable[[Link], Awaitable[None]]

# Questions to join that are remembered, until they have expired: of one token.
_JOINS_MOST = 10_000


class Reception:
    """Where the exporter of one token is asked: until it is closed, whoever has the token may join."""

    def __init__(self, engine: Engine, token: Token, instance: bytes, *, joined: JoinedBy) -> None:
        """Not served yet.

        Args:
            engine: that carries it.
            token: which.
            instance: of the exporter: another one after each of its starts.
            joined: what is told of a link with who joins: it prepares that, and has it then.
        """
        self._engine = engine
        self._token = token
        # Of this token alone: whoever asks by it so often that no more is taken keeps nobody from another one.
        self._instance = Once(instance, lease_from(now()), _JOINS_MOST)
        self._joined = joined
        self._halves = Halves()
        self._takes = Seal(token, Direction.TO_EXPORTER)
        self._answers = Answers(Seal(token, Direction.TO_IMPORTER), instance)
        self._stop: Stop | None = None
        self._closed = False

    async def open(self) -> None:
        """From here on; where it was closed meanwhile, no more when this returns."""
        self._stop = await self._engine.serve(self._token.subject, self._serve)
        if self._closed:
            await self._stop()

    async def close(self) -> None:
        """Nobody can join by it any more; who has joined has."""
        self._closed = True
        self._halves.forget_all()
        if self._stop is not None:
            await self._stop()

    async def _serve(self, body: bytes) -> bytes:
        if self._closed:
            return b""
        if of_lease(body) not in (NO_LEASE, self._instance.lease):
            lines.strays.one()
            return b""
        try:
            label, plain = self._takes.open(body)
            if label.kind == Kind.HELLO:
                read(plain, Hello)
                shown = now()
                half = self._halves.current(shown)
                self._instance.renew(lease_from(shown))
                return self._answers.answer(label, HelloAnswer(VERSION, shown, self._instance.lease, half.public))
            if label.kind != Kind.JOIN:
                return b""
            self._instance.take(label, now())
        except NotGenuine:
            return b""
        try:
            return self._answers.answer(label, await self._join(read(plain, Join)))
        except (NotTaken, NotGenuine, NotSent, Unanswered, LinkLost) as error:
            return self._answers.refusal(label, str(error))

    async def _join(self, join: Join) -> Joined:
        half = self._halves.shown(join.shown)
        if half is None:
            raise NotTaken("it has said hello too long ago")
        try:
            check_exporter(join.name)
            token = Token(self._token.exporter, join.link_name, half.key(join.half, self._token, join.link_name))
        except ValueError as error:
            raise NotTaken(str(error)) from None
        if len(join.lease) != LEASE_BYTES:
            raise NotTaken("a lease of another length")
        link = Link(self._engine, token, ours=self._token.exporter, other=join.name, made_by_us=False)
        link.joined(join.lease, join.clock)
        try:
            await self._joined(link)
        except BaseException as error:
            await link.close(f"it was not joined: {error}")
            raise
        return Joined(link.lease, link.renew())
