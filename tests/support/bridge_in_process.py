"""Two bridges and a server in one event loop, over a network that loses, holds and repeats; time leaps in it.

The server writes down what has run; each call has a number of its own.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import logging
import time

import capmarshal as cm
import leaping_loop
from capmarshal import aio
from capmarshal._bridge.bridge import Bridge
from engine_in_process import Network
from patience import PATIENCE

# Seconds of the leaping clock: that a call may take when nothing is held any more; and until all is let go that
# nobody has: capabilities are held for ten seconds, and the next ping tells of them.
PLENTY, RELEASED = 120.0, 30.0


class Thing(cm.Interface):
    @cm.method
    async def touch(self, number: int) -> int: ...


class Work(cm.Interface):
    """What is called: each call is written down by its number."""

    @cm.method
    async def run(self, number: int) -> int: ...

    @cm.method
    async def hold(self, number: int) -> int: ...

    @cm.method
    async def blob(self, number: int, data: bytes) -> bytes: ...

    @cm.method
    async def give(self, number: int) -> Thing: ...

    @cm.method
    async def give_many(self, number: int, count: int) -> list[Thing]: ...

    @cm.method
    async def hold_and_give(self, number: int) -> Thing: ...

    @cm.method
    async def keep(self, number: int, thing: Thing) -> None: ...

    @cm.method
    async def give_back(self, number: int) -> Thing: ...

    @cm.method
    async def take(self, number: int, thing: Thing) -> int: ...

    @cm.method
    async def same(self, number: int, thing: Thing) -> Thing: ...

    @cm.method
    async def hold_thing(self, number: int, thing: Thing) -> int: ...

    @cm.method
    async def hold_things(self, number: int, things: list[Thing]) -> int: ...

    @cm.method
    async def array(self, number: int, data: cm.Dataspace) -> cm.Dataspace: ...


class ThingServer(Thing):
    def __init__(self, ran):
        self._ran = ran

    async def touch(self, number):
        self._ran[number] += 1
        return number


class WorkServer(Work):
    """Serves it.

    Attributes:
        ran: how often, by number.
        ended: of those that were held, which have returned.
    """

    def __init__(self):
        self.ran = collections.Counter()
        self.ended = set()
        self._held = {}
        self._kept = []

    def let_go(self, number):
        """One that is held, or is to be, returns."""
        self._event(number).set()

    def _event(self, number):
        return self._held.setdefault(number, asyncio.Event())

    async def run(self, number):
        self.ran[number] += 1
        return number

    async def hold(self, number):
        self.ran[number] += 1
        await self._event(number).wait()
        self.ended.add(number)
        return number

    async def blob(self, number, data):
        self.ran[number] += 1
        return data

    async def give(self, number):
        self.ran[number] += 1
        return ThingServer(self.ran)

    async def give_many(self, number, count):
        self.ran[number] += 1
        return [ThingServer(self.ran) for _ in range(count)]

    async def hold_and_give(self, number):
        await self.hold(number)
        return ThingServer(self.ran)

    async def keep(self, number, thing):
        self.ran[number] += 1
        self._kept.append(thing)

    async def give_back(self, number):
        self.ran[number] += 1
        return self._kept.pop()

    async def take(self, number, thing):
        self.ran[number] += 1
        with contextlib.suppress(cm.Disconnected):
            return await thing.touch(-number)
        # Its machine was lost meanwhile, and this has run all the same.
        return -number

    async def same(self, number, thing):
        self.ran[number] += 1
        return thing

    async def hold_thing(self, number, thing):
        return await self.hold(number)

    async def hold_things(self, number, things):
        return await self.hold(number)

    async def array(self, number, data):
        self.ran[number] += 1
        return data


class Kept:
    """An asynchronous context manager that is entered and left in a task of its own, whoever says so."""

    def __init__(self, manager):
        self._manager = manager
        self._left = asyncio.Event()

    async def enter(self):
        """What it gives."""
        entered = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(entered))
        return await entered

    async def leave(self):
        """Returns when it is left."""
        self._left.set()
        await self._task

    async def _keep(self, entered):
        async with self._manager as made:
            entered.set_result(made)
            await self._left.wait()


class World:
    """All of it.

    Attributes:
        network: between the bridges.
        near, far: the bridges.
        served: what the far one exports.
        token: of that.
        work: what the near one has of it.
        things: an entrypoint of the near side's.
        entrypoint: that serves it.
    """

    @classmethod
    @contextlib.asynccontextmanager
    async def made(cls):
        """One, for as long as the block lasts."""
        self = cls()
        self.network, self.served = Network(), WorkServer()
        async with (
            aio.Entrypoint("work", concurrency=1000) as self.entrypoint,
            aio.Entrypoint("things") as self.things,
            Bridge("near", self.network.engine(), close_timeout=0) as self.near,
        ):
            self._far = Kept(Bridge("far", self.network.engine(), close_timeout=0))
            try:
                self.exported = self.entrypoint.manage(self.served)
                self.far = await self._far.enter()
                self.token = await self.far.export(self.exported)
                self.work = (await self.near.connect(self.token)).cast(Work)
                yield self
            finally:
                self.network.release()
                self.work = self.exported = None
                await self._far.leave()

    async def restart_far(self):
        """The far bridge ends, and another one of its name exports the same by the same token."""
        # As one that was killed: it tells nobody.
        self.far._engine.disconnect()
        await self._far.leave()
        self._far = Kept(Bridge("far", self.network.engine(), close_timeout=0))
        # It asks for its own name first.
        judge, self.network.judge = self.network.judge, lambda _flight: "carry"
        self.far = await self._far.enter()
        self.network.judge = judge
        await self.far.export(self.exported, token=self.token)

    def thing(self):
        """One of the near side's."""
        return self.things.manage(ThingServer(self.served.ran)).cast(Thing)

    async def idle(self):
        """Lets go of what the far one exports; nobody has anything of anybody's, some time after that."""
        self.network.release()
        self.work = None
        await self.released()

    async def released(self):
        """Nobody has anything of anybody's some time after nobody refers to it."""
        # An entrypoint looks at its doors by the clock of the kernel, which leaps for nobody.
        deadline = time.monotonic() + PATIENCE
        await asyncio.sleep(RELEASED)
        while self.counts():
            assert time.monotonic() < deadline, self.counts()
            await asyncio.sleep(RELEASED)

    def counts(self):
        """What is not nothing of what each has of the other's."""
        return [
            (bridge.name, what, count)
            for bridge in (self.near, self.far)
            for counts in bridge.counts.values()
            for what, count in counts.items()
            if count
        ]


def run(program, *, caplog):
    """A coroutine function, which is given such a world; what bridges do wrong they log.

    The garbage collector does not come: what nobody has any more is let go of without it, or never.
    """

    async def whole():
        async with asyncio.timeout(100 * PLENTY), World.made() as world:
            await program(world)

    gc.collect()
    gc.disable()
    try:
        with leaping_loop.runner() as runner:
            runner.run(whole())
    finally:
        gc.enable()
    wrong = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not wrong, wrong


def kind(flight):
    """What a body is: the second byte of its head; an empty one has none."""
    return flight.body[1] if flight.body else None


async def settle():
    """Returns when all has happened that needs no time: the clock does not leap before.

    On a busy machine some time passes meanwhile, too, and says nothing.
    """
    loop = asyncio.get_running_loop()
    leapt = loop.leapt
    while loop.leapt == leapt:
        await asyncio.sleep(0.05)
