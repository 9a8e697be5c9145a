"""That an engine has a connection to some node: made, asked whether it is alive, and another one when it was lost.

One at a time, which is asked every other second whether it is alive, so that a node that has stopped is left, too; then
the next one, of the nodes that were given and those that these have told of.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from typing import TYPE_CHECKING

from .engine import EngineError
from .nats_connection import Connection, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .login import Login
    from .nats_interests import Interest, Interests
    from .nats_nodes import Nodes

_logger = logging.getLogger("capmarshal")

# Seconds between two rounds through all nodes: the first time, and at most.
_SOON, _LATER = 0.05, 2.0

# How often a node is asked whether it is alive before it is asked again for what it has not permitted.
_ASKED_AGAIN = 5


class Keeper:
    """Keeps one.

    Attributes:
        connection: the one that there is; it may be lost already.
        connected: set when there is another one.
    """

    def __init__(
        self,
        nodes: Nodes,
        login: Login,
        interests: Interests,
        answered: Interest,
        *,
        at_denial: Callable[[str, str], None],
        liveness: float,
    ) -> None:
        """None yet.

        Args:
            nodes: which there are; borrowed.
            login: who this is, to all of them.
            interests: that each connection has; borrowed.
            answered: without which a connection is good for nothing.
            at_denial: is told what a node does not permit.
            liveness: seconds after which a node is asked whether it is alive, and that it has to answer.
        """
        self.connection: Connection | None = None
        self.connected: asyncio.Event = asyncio.Event()
        self._nodes = nodes
        self._login = login
        self._interests = interests
        self._answered = answered
        self._at_denial = at_denial
        self._liveness = liveness
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Has the first one, and keeps one from here on.

        Raises:
            EngineError: no node could be reached; the message says why, of each.
        """
        connection, why = await self._open_any()
        if connection is None:
            raise EngineError(f"no node of the engine can be used: {'; '.join(why)}")
        self._use(connection)
        self._task = asyncio.create_task(self._keep())

    @property
    def usable(self) -> Connection | None:
        """The one that there is, unless it is lost."""
        return self.connection if self.connection is not None and self.connection.is_connected else None

    async def end(self) -> None:
        """None any more."""
        # What it awaits may take its being cancelled for nothing: nats-py uses asyncio.wait_for(), see alive().
        self._ending = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep(self) -> None:
        """Until it is cancelled."""
        try:
            while not self._ending:
                try:
                    await self._go_on()
                except Exception:
                    # Without this task there would be no connection any more, and nobody would hear of that.
                    _logger.exception("a bridge's engine connects again, since keeping its connection raised")
                    await asyncio.sleep(_SOON)
        finally:
            if self.connection is not None:
                await self.connection.drop()
                self.connection = None

    async def _go_on(self) -> None:
        """Has another connection, when the one that there is was lost."""
        connection = self.connection
        if connection is not None:
            try:
                await self._outlast(connection)
            finally:
                self.connection = None
                self.connected.clear()
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
                    await self._interests.ask_again(connection)
                before = connection.progress()
                # On a slow line the answer waits behind what is sent, and that moves.
                if not await connection.alive(self._liveness) and connection.progress() == before:
                    return

    async def _reconnect(self) -> None:
        pause = _SOON
        said: set[str] = set()
        while not self._ending:
            connection, why = await self._open_any()
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

    async def _open_any(self) -> tuple[Connection | None, list[str]]:
        """A connection that has all subscriptions; or why there is none, of each node."""
        why = []
        addresses = self._nodes.all
        for address in random.sample(addresses, len(addresses)):
            connection = Connection(self._at_denial)
            name = None if self._login.tls is None else self._nodes.name_in_certificate(address)
            try:
                await connection.open(address, self._login, name)
            except Unusable as error:
                why.append(f"{self._shown(address)}: {error}")
                continue
            try:
                usable = await self._interests.subscribe_all(connection)
            except BaseException:
                await connection.drop()
                raise
            if usable and not self._answered.denied:
                return connection, []
            why.append(f"{self._shown(address)}: {self._answered.denied or 'it was lost at once'}")
            await connection.drop()
        return None, why

    def _use(self, connection: Connection) -> None:
        self.connection = connection
        self._nodes.tell(node.netloc for node in connection.discovered_servers)
        self.connected.set()
        _logger.info("a bridge's engine is connected to %s", self._shown(connection.address))

    def _shown(self, address: str) -> str:
        """As people write it."""
        return address if self._login.tls is None else address.replace("nats://", "tls://", 1)
