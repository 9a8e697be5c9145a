"""The engine that carries bodies by NATS: see :mod:`capmarshal._bridge_engine.engine` for what its verbs mean.

A call is a message with a reply subject below this engine's inbox, 128 random bits; that nobody serves a subject, the
node says.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from .awaited_answers import AwaitedAnswers
from .engine import (
    CLOSING,
    Accept,
    EngineClosed,
    Handler,
    NobodyThere,
    NoConnection,
    NotAllowed,
    NotSent,
    Stop,
    Watcher,
    check,
    take_all,
)
from .handling import CONCURRENCY, Handling, tell
from .login import Login
from .nats_connection import Connection, NatsError
from .nats_interests import Interest, Interests
from .nats_keeper import Keeper
from .nats_nodes import Nodes
from .tls import Tls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats.aio.msg import Msg

    from .nats_wire import Taker

# Seconds between two questions whether a node is alive, and that it has for an answer.
LIVENESS = 2.0

# Bytes that a connection may have been given and not sent.
_UNSENT = 16 << 20

# Seconds that an answer waits for a connection, or for the node to take those before it; and between two looks.
_ANSWERING = 10.0
_LOOKING = 0.05


class NatsEngine:
    """The engine's five verbs, by NATS."""

    def __init__(
        self, addresses: Sequence[str], login: Login, *, inbox: str, concurrency: int, liveness: float
    ) -> None:
        """Use connect()."""
        nodes = Nodes(addresses)
        if login.tls is None and nodes.encrypt:
            login = replace(login, tls=Tls())
        self._inbox = f"{inbox}.{secrets.token_hex(16)}"
        check(self._inbox)
        self._answered_at = f"{self._inbox}.".encode()
        self._closed = False
        self._over = asyncio.Event()
        self._answers = AwaitedAnswers()
        self._handling = Handling(concurrency)
        self._answered = Interest(f"{self._inbox}.*", self._take_answer, self._told_of_answer)
        self._interests = Interests(self._answered, liveness)
        self._keeper = Keeper(nodes, login, self._interests, self._answered, at_denial=self._deny, liveness=liveness)

    @classmethod
    async def connect(
        cls,
        addresses: Sequence[str],
        login: Login | None = None,
        *,
        inbox: str = "_INBOX",
        concurrency: int = CONCURRENCY,
        liveness: float = LIVENESS,
    ) -> NatsEngine:
        """An engine that has a connection.

        Args:
            addresses: of some nodes of one cluster, as ``nats://host:port``; they tell of the others.  ``tls://`` is
                for those that encrypt, as the login's ``tls`` is: either has all of them do so.
            login: who this is, to all of them.
            inbox: what subjects for answers begin with.  Permissions of NATS that let a bridge subscribe to no other
                inboxes than its own keep its neighbours from answering in another's place.
            concurrency: how many calls of one subject may be served at a time.
            liveness: seconds after which a node is asked whether it is alive, and that it has to answer.

        Raises:
            EngineError: no node could be reached; the message says why, of each.
            ValueError: an address is none, or has credentials in it.
        """
        engine = cls(
            addresses, Login() if login is None else login, inbox=inbox, concurrency=concurrency, liveness=liveness
        )
        await engine._keeper.begin()
        return engine

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._keeper.usable is not None

    async def serve(self, subject: str, handler: Handler, /) -> Stop:
        """See the seam."""
        room = self._handling.room()

        def take(_subject: bytes, reply: bytes, body: bytes) -> None:
            if reply:
                self._handling.start(room, handler, body, partial(self._answer, reply))

        async def told(message: Msg) -> None:
            take(b"", message.reply.encode(), message.data)

        return await self._begin(subject, take, told)

    async def call(self, subject: str, body: bytes, /, *, within: float, accept: Accept = take_all) -> bytes:
        """See the seam."""
        check(subject, body, within)
        if self._answered.denied and self._keeper.usable:
            raise NotAllowed(self._answered.denied)
        with self._answers.expect(accept, subject) as awaited:
            self._publish(subject, body, self._answered_at + awaited.number)
            return await awaited.wait(within)

    async def watch(self, subject: str, watcher: Watcher, /) -> Stop:
        """See the seam."""

        async def told(message: Msg) -> None:
            await tell(watcher, message.data)

        return await self._begin(subject, None, told)

    async def send(self, subject: str, body: bytes, /) -> None:
        """See the seam."""
        check(subject, body)
        self._publish(subject, body)

    async def close(self, *, within: float = CLOSING) -> None:
        """See the seam."""
        if self._closed:
            await self._over.wait()
            return
        self._closed = True
        deadline = asyncio.get_running_loop().time() + within
        try:
            await self._interests.end_all()
            await self._handling.finish(within)
            if connection := self._keeper.usable:
                await connection.alive(max(deadline - asyncio.get_running_loop().time(), 0.1))
        finally:
            self._answers.fail_all("the engine was closed before an answer had come")
            try:
                await self._keeper.end()
            finally:
                self._over.set()

    # What goes out -------------------------------------------------------------------------------------------------

    def _publish(self, subject: str, body: bytes, reply: bytes = b"") -> None:
        if self._closed:
            raise EngineClosed("the engine was closed")
        self._give(self._keeper.usable, subject.encode(), body, reply)

    def _give(self, connection: Connection | None, subject: bytes, body: bytes, reply: bytes = b"") -> None:
        if connection is None:
            raise NoConnection("the engine has no connection to any node at the moment")
        if connection.pending_data_size > _UNSENT:
            raise NotSent(f"the engine's node has not yet taken {_UNSENT >> 20} MiB that were sent before")
        try:
            connection.give(subject, body, reply)
        except NatsError as error:
            # All of them are raised before the connection has it.
            raise NoConnection(f"the engine's connection takes nothing: {error}") from None

    def _answer(self, reply: bytes, body: bytes) -> Awaitable[None] | None:
        check("answer", body)
        connection = self._keeper.usable
        if connection is None or connection.pending_data_size > _UNSENT:
            return self._answer_later(reply, body)
        self._give(connection, reply, body)
        return None

    async def _answer_later(self, reply: bytes, body: bytes) -> None:
        async with asyncio.timeout(_ANSWERING):
            while (connection := self._keeper.usable) is None or connection.pending_data_size > _UNSENT:
                if connection is None:
                    self._keeper.connected.clear()
                    await self._keeper.connected.wait()
                else:
                    # The node takes what others were answered; whoever asks would wait for nothing.
                    await asyncio.sleep(_LOOKING)
        self._give(connection, reply, body)

    # What comes in -------------------------------------------------------------------------------------------------

    async def _begin(self, subject: str, take: Taker | None, told: Callable[[Msg], Awaitable[None]]) -> Stop:
        check(subject)
        if self._closed:
            raise EngineClosed("the engine was closed")
        interest = Interest(subject, take, told)
        await self._interests.begin(interest, self._keeper.usable)
        return partial(self._interests.end, interest)

    def _take_answer(self, subject: bytes, _reply: bytes, body: bytes) -> None:
        awaited = self._answers.find(subject.rpartition(b".")[2])
        if awaited is not None:
            awaited.come(body)

    async def _told_of_answer(self, message: Msg) -> None:
        awaited = self._answers.find(message.subject.rpartition(".")[2].encode())
        if awaited is None:
            return
        if message.headers and message.headers.get("Status") == "503":
            awaited.fail(NobodyThere("nobody serves that subject"))
        else:
            awaited.come(message.data)

    def _deny(self, verb: str, subject: str) -> None:
        """A node does not let this one do something: said to who waits for it."""
        words = self._interests.deny(verb, subject)
        if verb == "publish":
            self._answers.fail_those_of(subject, NotAllowed(words))
