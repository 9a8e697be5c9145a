"""The engine that carries bodies by NATS: see :mod:`capmarshal._bridge_engine.engine` for what its verbs mean.

A call is a message with a reply subject below this engine's inbox, 128 random bits; that nobody serves a subject, the
node says.  One connection at a time, which is asked every other second whether it is alive, so that a node that has
stopped is left, too; then the next one, of the nodes that were given and those that these have told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import random
import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .awaited_answers import AwaitedAnswers
from .engine import (
    CLOSING,
    Accept,
    EngineClosed,
    EngineError,
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
from .nats_connection import Connection, NatsError, Unusable
from .refusals import general, missing
from .tls import Tls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from .nats_wire import Taker

_logger = logging.getLogger("capmarshal")

# Seconds between two questions whether a node is alive, and that it has for an answer.
LIVENESS = 2.0

# Bytes that a connection may have been given and not sent.
_UNSENT = 16 << 20

# Bytes that may have come for a subject that is watched, and wait; what comes then is lost.
_UNTAKEN = 64 << 20

# Seconds that an answer waits for a connection, or for the node to take those before it.
_ANSWERING = 10.0

# Seconds between two rounds through all nodes: the first time, and at most.
_SOON, _LATER = 0.05, 2.0

# How often a node is asked whether it is alive before it is asked again for what it has not permitted.
_ASKED_AGAIN = 5


class _Interest:
    """A subject that is served or watched, whichever connection there is."""

    def __init__(self, subject: str, take: Taker | None, told: Callable[[Msg], Awaitable[None]]) -> None:
        """Of its messages, ``take`` takes those that have no headers as they come, unless that is None.

        All others ``told`` hears of, one after the other.
        """
        self.subject = subject
        self.take = take
        self.told = told
        self.subscription: Subscription | None = None
        # Which permission is missing, where the node said so.
        self.denied = ""


class NatsEngine:
    """The engine's five verbs, by NATS."""

    def __init__(
        self, addresses: Sequence[str], login: Login, *, inbox: str, concurrency: int, liveness: float
    ) -> None:
        """Use connect()."""
        self._addresses = [checked_address(address) for address in addresses]
        if not self._addresses:
            raise ValueError("an engine needs the address of one node at least")
        if login.tls is None and any(urlsplit(address).scheme == "tls" for address in addresses):
            login = replace(login, tls=Tls())
        self._login = login
        self._liveness = liveness
        self._inbox = f"{inbox}.{secrets.token_hex(16)}"
        check(self._inbox)
        self._told: list[str] = []
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._closed = self._ending = False
        self._answers = AwaitedAnswers()
        self._handling = Handling(concurrency)
        self._answered = _Interest(f"{self._inbox}.*", self._take_answer, self._told_of_answer)
        self._interests = {self._answered}
        # What ends those whose beginning was cancelled.
        self._cut_off: set[asyncio.Task[None]] = set()
        self._denials: set[tuple[str, str]] = set()
        self._keeper: asyncio.Task[None] | None = None

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
        connection, why = await engine._open_any(engine._addresses)
        if connection is None:
            raise EngineError(f"no node of the engine can be used: {'; '.join(why)}")
        engine._use(connection)
        engine._keeper = asyncio.create_task(engine._keep())
        return engine

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._usable() is not None

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
        if self._answered.denied and self._usable():
            raise NotAllowed(self._answered.denied)
        with self._answers.expect(accept, subject) as awaited:
            self._publish(subject, body, f"{self._inbox}.{awaited.number}".encode())
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
            return
        self._closed = True
        deadline = asyncio.get_running_loop().time() + within
        try:
            for interest in list(self._interests):
                if interest is not self._answered:
                    await self._end(interest)
            if self._cut_off:
                await asyncio.wait(self._cut_off)
            await self._handling.finish(within)
            if connection := self._usable():
                await connection.alive(max(deadline - asyncio.get_running_loop().time(), 0.1))
        finally:
            self._answers.fail_all("the engine was closed before an answer had come")
            # What it awaits may take its being cancelled for nothing: nats-py uses asyncio.wait_for(), see alive().
            self._ending = True
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.wait([self._keeper])

    # What goes out -------------------------------------------------------------------------------------------------

    def _usable(self) -> Connection | None:
        return self._connection if self._connection is not None and self._connection.is_connected else None

    def _publish(self, subject: str, body: bytes, reply: bytes = b"") -> None:
        if self._closed:
            raise EngineClosed("the engine was closed")
        self._give(self._usable(), subject.encode(), body, reply)

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
        connection = self._usable()
        if connection is None or connection.pending_data_size > _UNSENT:
            return self._answer_later(reply, body)
        self._give(connection, reply, body)
        return None

    async def _answer_later(self, reply: bytes, body: bytes) -> None:
        async with asyncio.timeout(_ANSWERING):
            while (connection := self._usable()) is None or connection.pending_data_size > _UNSENT:
                if connection is None:
                    self._connected.clear()
                    await self._connected.wait()
                else:
                    # The node takes what others were answered; whoever asks would wait for nothing.
                    await asyncio.sleep(_SOON)
        self._give(connection, reply, body)

    def _take_answer(self, subject: bytes, _reply: bytes, body: bytes) -> None:
        awaited = self._answers.find(subject.rpartition(b".")[2].decode("ascii", "replace"))
        if awaited is not None:
            awaited.come(body)

    async def _told_of_answer(self, message: Msg) -> None:
        awaited = self._answers.find(message.subject.rpartition(".")[2])
        if awaited is None:
            return
        if message.headers and message.headers.get("Status") == "503":
            awaited.fail(NobodyThere("nobody serves that subject"))
        else:
            awaited.come(message.data)

    # What comes in -------------------------------------------------------------------------------------------------

    async def _begin(self, subject: str, take: Taker | None, told: Callable[[Msg], Awaitable[None]]) -> Stop:
        check(subject)
        if self._closed:
            raise EngineClosed("the engine was closed")
        interest = _Interest(subject, take, told)
        self._interests.add(interest)
        if connection := self._usable():
            try:
                # Where that fails the connection is lost, and the next one has it.
                await self._subscribe(connection, [interest])
            except BaseException:
                # Cut off: nobody has what would stop it.
                ending = asyncio.create_task(self._end(interest))
                self._cut_off.add(ending)
                ending.add_done_callback(self._cut_off.discard)
                raise
            if interest.denied:
                words = interest.denied
                await self._end(interest)
                raise NotAllowed(words)
        return lambda: self._end(interest)

    async def _end(self, interest: _Interest) -> None:
        self._interests.discard(interest)
        subscription, interest.subscription = interest.subscription, None
        if subscription is not None:
            # Also of a connection that is being made.  What was on its way when the node heard of it is taken still.
            try:
                async with asyncio.timeout(self._liveness):
                    await subscription.drain()  # type: ignore[no-untyped-call]
            except (TimeoutError, OSError, NatsError):
                _logger.debug("a bridge's engine: a subscription ends with its connection")

    async def _subscribe(self, connection: Connection, interests: Sequence[_Interest]) -> bool:
        """Whether the node has it now."""
        try:
            for interest in interests:
                interest.denied = ""
                interest.subscription = await connection.subscribe(
                    interest.subject, cb=interest.told, pending_bytes_limit=_UNTAKEN
                )
                if interest not in self._interests:
                    # It has ended meanwhile.
                    await interest.subscription.unsubscribe()
                elif interest.take is not None:
                    connection.have_taken(interest.subscription, interest.take)
        except NatsError:
            return False
        return await connection.alive(self._liveness)

    async def _subscribe_all(self, connection: Connection) -> bool:
        """Likewise, with what has begun meanwhile."""
        has: set[_Interest] = set()
        while begun := self._interests - has:
            has |= begun
            if not await self._subscribe(connection, list(begun)):
                return False
        return True

    def _deny(self, verb: str, subject: str) -> None:
        """The node does not let this one do something: said to who waits for it, and, once, to who reads the log."""
        words = missing(verb, subject)
        if verb == "publish":
            self._answers.fail_those_of(subject, NotAllowed(words))
        for interest in self._interests:
            if verb == "subscription" and interest.subject.lower() == subject:
                words = interest.denied = missing(verb, interest.subject)
        # Calls and tokens come and go, and what is missing is the same for all of them.
        if (verb, general(subject)) not in self._denials:
            self._denials.add((verb, general(subject)))
            _logger.warning("a bridge's engine: %s", words)

    async def _ask_again(self, connection: Connection) -> None:
        """Permissions may be changed while there is a connection: for what was denied the node is asked again."""
        for interest in [interest for interest in self._interests if interest.denied]:
            subscription, interest.subscription = interest.subscription, None
            if subscription is not None:
                with contextlib.suppress(NatsError):
                    await subscription.unsubscribe()
            if await self._subscribe(connection, [interest]) and not interest.denied:
                self._denials.discard(("subscription", general(interest.subject.lower())))
                _logger.info("a bridge's engine: its user may subscribe to %s now", general(interest.subject))

    # The connection ------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Has a connection, until it is cancelled."""
        try:
            while not self._ending:
                try:
                    await self._go_on()
                except Exception:
                    # Without this task there would be no connection any more, and nobody would hear of that.
                    _logger.exception("a bridge's engine connects again, since keeping its connection raised")
                    await asyncio.sleep(_SOON)
        finally:
            if self._connection is not None:
                await self._connection.drop()
                self._connection = None

    async def _go_on(self) -> None:
        """Has another connection, when the one that there is was lost."""
        connection = self._connection
        if connection is not None:
            try:
                await self._outlast(connection)
            finally:
                self._connection = None
                self._connected.clear()
                await connection.drop()
            _logger.info("a bridge's engine has lost its node; it goes to another one")
        await self._reconnect()

    async def _outlast(self, connection: Connection) -> None:
        """Returns when a connection has ended, or its node does not answer."""
        for turn in itertools.count(1):
            if self._ending:
                return
            try:
                async with asyncio.timeout(self._liveness):
                    await connection.ended.wait()
                    return
            except TimeoutError:
                if turn % _ASKED_AGAIN == 0:
                    await self._ask_again(connection)
                before = connection.progress()
                # On a slow line the answer waits behind what is sent, and that moves.
                if not await connection.alive(self._liveness) and connection.progress() == before:
                    return

    async def _reconnect(self) -> None:
        pause = _SOON
        said: set[str] = set()
        while not self._ending:
            connection, why = await self._open_any(dict.fromkeys([*self._addresses, *self._told]))
            if connection is not None:
                self._use(connection)
                if said:
                    _logger.info("a bridge's engine has a node again")
                return
            for words in why:
                if words not in said:
                    said.add(words)
                    _logger.warning("a bridge's engine has no node: %s", words)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - not for secrets
            pause = min(2 * pause, _LATER)

    async def _open_any(self, addresses: Sequence[str] | dict[str, None]) -> tuple[Connection | None, list[str]]:
        """A connection that has all subscriptions; or why there is none, of each node."""
        why = []
        for address in random.sample(list(addresses), len(addresses)):
            connection = Connection(self._deny)
            try:
                await connection.open(address, self._login, self._tls_name(address))
            except Unusable as error:
                why.append(f"{address}: {error}")
                continue
            try:
                usable = await self._subscribe_all(connection)
            except BaseException:
                await connection.drop()
                raise
            if usable and not self._answered.denied:
                return connection, []
            why.append(f"{address}: {self._answered.denied or 'it was lost at once'}")
            await connection.drop()
        return None, why

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        self._told = [f"nats://{node.netloc}" for node in connection.discovered_servers]
        self._connected.set()
        _logger.info("a bridge's engine is connected to %s", connection.address)

    def _tls_name(self, address: str) -> str | None:
        """What stands in a node's certificate: where others have told of it by its number, the first node's name."""
        if self._login.tls is None:
            return None
        host = urlsplit(address).hostname
        return urlsplit(self._addresses[0]).hostname if address in self._told and _is_number(host) else host


def checked_address(address: str) -> str:
    """The address of a node, as it is connected to.

    Raises:
        ValueError: it is none, or has credentials in it.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise ValueError("a node's address is nats://HOST:PORT, or tls://HOST:PORT")
    if "@" in parts.netloc:
        raise ValueError("a node's address has no credentials in it: nodes that are found later would not get them")
    return f"nats://{parts.netloc}"


def _is_number(host: str | None) -> bool:
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return True
