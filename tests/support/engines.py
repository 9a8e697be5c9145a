"""Engines of both kinds, for tests that are run with either."""

from __future__ import annotations

import asyncio

import loops
from capmarshal._bridge_engine.engine import NobodyThere, Unanswered
from capmarshal._bridge_engine.nats_engine import NatsEngine
from engine_in_process import Network
from nats_servers import nodes

# Seconds of a call that is to be answered; and of one that is not.
PLENTY, SHORT = 25.0, 0.1


class InProcess:
    """Engines of one network in this process."""

    loop = "asyncio"

    def __init__(self, _directory):
        self._network = Network()

    async def engine(self, **options):
        """One more."""
        return self._network.engine(**options)

    def cut(self):
        """The nodes are gone."""
        for engine in self._network.engines:
            engine.disconnect()

    def mend(self):
        """They are there again."""
        for engine in self._network.engines:
            engine.connect()

    def close(self):
        """After the test."""


class Nats:
    """Engines of one node, which is started for the test."""

    loop = "asyncio"

    def __init__(self, directory):
        self._block = nodes(directory)
        [self._node] = self._block.__enter__()

    async def engine(self, **options):
        """One more."""
        return await NatsEngine.connect([self._node.address], liveness=0.5, **options)

    def cut(self):
        """The node is killed."""
        self._node.kill()

    def mend(self):
        """It is started again."""
        self._node.start()

    def close(self):
        """After the test."""
        self._block.__exit__(None, None, None)


class NatsOnUvloop(Nats):
    """The same, in uvloop."""

    loop = "uvloop"


KINDS = {"in_process": InProcess, "nats": Nats, "nats_uvloop": NatsOnUvloop}


class World:
    """Some engines of one kind, and a program that uses them."""

    def __init__(self, kind):
        self._kind = kind
        self._made = []
        self.cut, self.mend = kind.cut, kind.mend

    def run(self, program):
        """Runs it in an event loop; afterwards all engines are closed."""

        async def whole():
            try:
                return await program()
            finally:
                for engine in self._made:
                    await engine.close(within=0)

        return loops.run(self._kind.loop, whole)

    async def engine(self, **options):
        """One more."""
        self._made.append(await self._kind.engine(**options))
        return self._made[-1]

    async def gone(self, *engines):
        """Returns when engines have noticed that their node is gone."""
        await awaited(lambda: not any(engine.connected for engine in engines))

    async def back(self, *engines):
        """Returns when they have one again."""
        await awaited(lambda: all(engine.connected for engine in engines))


async def awaited(condition):
    """Returns when a condition is true; the test's deadline is that of its loop."""
    while not condition():
        await asyncio.sleep(0.002)  # a poll, of what nothing tells


async def answered(engine, subject, body, **options):
    """What a call is answered at last: nodes have to tell each other who serves."""
    while True:
        try:
            return await engine.call(subject, body, **{"within": 1, **options})
        except (NobodyThere, Unanswered):
            await asyncio.sleep(0.01)  # a poll: between two calls
