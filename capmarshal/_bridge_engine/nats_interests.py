"""The subjects that an engine serves or watches, whichever connection it has, and which of them it may not have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from .engine import NotAllowed
from .nats_connection import Connection, NatsError
from .refusals import general, missing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from .nats_wire import Taker

_logger = logging.getLogger("capmarshal")

# Bytes that may have come for a subject that is watched, and wait; what comes then is lost.
_UNTAKEN = 64 << 20


class Interest:
    """A subject that is served or watched.

    Attributes:
        denied: which permission is missing, where the node said so.
    """

    def __init__(self, subject: str, take: Taker | None, told: Callable[[Msg], Awaitable[None]]) -> None:
        """Of its messages, ``take`` takes those that have no headers as they come, unless that is None.

        All others ``told`` hears of, one after the other.
        """
        self.subject = subject
        self.take = take
        self.told = told
        self.subscription: Subscription | None = None
        self.denied = ""


class Interests:
    """All of one engine."""

    def __init__(self, answered: Interest, liveness: float) -> None:
        """One, where answers come, which ends with the engine; a node has so many seconds to say that it has one."""
        self._answered = answered
        self._all = {answered}
        self._liveness = liveness
        # What ends those whose beginning was cancelled.
        self._cut_off: set[asyncio.Task[None]] = set()
        self._denials: set[tuple[str, str]] = set()

    async def begin(self, interest: Interest, connection: Connection | None) -> None:
        """One more: this connection has it, if there is one, and each that comes.

        Raises:
            NotAllowed: the node does not permit it; it is none of these then.
        """
        self._all.add(interest)
        if connection is None:
            return
        try:
            # Where that fails the connection is lost, and the next one has it.
            await self._subscribe(connection, [interest])
        except BaseException:
            # Cut off: nobody has what would stop it.
            ending = asyncio.create_task(self.end(interest))
            self._cut_off.add(ending)
            ending.add_done_callback(self._cut_off.discard)
            raise
        if interest.denied:
            words = interest.denied
            await self.end(interest)
            raise NotAllowed(words)

    async def end(self, interest: Interest) -> None:
        """One less."""
        self._all.discard(interest)
        subscription, interest.subscription = interest.subscription, None
        if subscription is not None:
            # Also of a connection that is being made.  What was on its way when the node heard of it is taken still.
            try:
                async with asyncio.timeout(self._liveness):
                    await subscription.drain()  # type: ignore[no-untyped-call]
            except (TimeoutError, OSError, NatsError):
                _logger.debug("a bridge's engine: a subscription ends with its connection")

    async def end_all(self) -> None:
        """None any more, but answers."""
        # Beside each other: a node that stands still has its time with each of them.
        await asyncio.gather(*(self.end(interest) for interest in self._all if interest is not self._answered))
        if self._cut_off:
            await asyncio.wait(self._cut_off)

    async def subscribe_all(self, connection: Connection) -> bool:
        """Has a new connection have all of them, and those that begin meanwhile; whether its node has them now."""
        has: set[Interest] = set()
        while begun := self._all - has:
            has |= begun
            if not await self._subscribe(connection, list(begun)):
                return False
        return True

    async def ask_again(self, connection: Connection) -> None:
        """Permissions may be changed while there is a connection: for what was denied the node is asked again."""
        for interest in [interest for interest in self._all if interest.denied]:
            subscription, interest.subscription = interest.subscription, None
            if subscription is not None:
                with contextlib.suppress(NatsError):
                    await subscription.unsubscribe()
            if await self._subscribe(connection, [interest]) and not interest.denied:
                self._denials.discard(("subscription", general(interest.subject.lower())))
                _logger.info("a bridge's engine: its user may subscribe to %s now", general(interest.subject))

    def deny(self, verb: str, subject: str) -> str:
        """A node does not let this engine do something: logged, once; and which permission is missing, in words."""
        words = missing(verb, subject)
        for interest in self._all:
            if verb == "subscription" and interest.subject.lower() == subject:
                words = interest.denied = missing(verb, interest.subject)
        # Calls and tokens come and go, and what is missing is the same for all of them.
        if (verb, general(subject)) not in self._denials:
            self._denials.add((verb, general(subject)))
            _logger.warning("a bridge's engine: %s", words)
        return words

    async def _subscribe(self, connection: Connection, interests: Iterable[Interest]) -> bool:
        """Whether the node has it now."""
        try:
            for interest in interests:
                interest.denied = ""
                interest.subscription = await connection.subscribe(
                    interest.subject, cb=interest.told, pending_bytes_limit=_UNTAKEN
                )
                if interest not in self._all:
                    # It has ended meanwhile.
                    await interest.subscription.unsubscribe()
                elif interest.take is not None:
                    connection.have_taken(interest.subscription, interest.take)
        except NatsError:
            return False
        return await connection.alive(self._liveness)
