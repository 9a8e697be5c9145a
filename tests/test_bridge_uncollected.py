"""What calls through two bridges have carried is let go of when they are over, where no garbage collector comes, too.

A call that is given up ends by an error, in two bridges and two processes besides, and an error has the frames that it
went through, with all that they have.  One that these have in turn is in a circle with it.
"""

import asyncio
import contextlib
import gc
import itertools
import logging
import random
import weakref
from collections import Counter
from collections.abc import AsyncIterator

import pytest

import bridge_in_process
import capmarshal as cm
from bridge_in_process import RELEASED, Thing
from capmarshal._bridge import crossing
from capmarshal._bridge.crossing import SHORT
from capmarshal._bridge.fetching import CHUNK
from capmarshal._bridge_engine.awaited_answers import AwaitedAnswers
from capmarshal._bridge_engine.engine import Unanswered
from capmarshal._bridge_link.agreeing import _GOOD_FOR
from capmarshal._bridge_link.messages import ANSWER, Kind
from capmarshal._kernel.hands import Hand

# More of what an event loop does in a row than any call here that ends.
STEPS = 1_000
# Of one that does not: until it has come, and waits.
UNTIL_IT_WAITS = 40

# Fetched, in two chunks.
LONG = bytes(SHORT + CHUNK // 2)


class Refused(Exception):
    """By who was called."""


class Carrying(cm.Interface):
    """All that can cross, each way."""

    @cm.method
    async def touch(self, thing: Thing) -> int: ...

    @cm.method
    async def same(self, things: list[Thing]) -> list[Thing]: ...

    @cm.method
    async def give(self) -> list[Thing]: ...

    @cm.method
    @cm.raises(Refused)
    async def refuse(self, thing: Thing) -> None: ...

    @cm.method
    async def hold(self, thing: Thing) -> None: ...

    @cm.method
    async def ring(self, signal: cm.Signal) -> None: ...

    @cm.method
    async def bell(self) -> cm.Signal: ...

    @cm.method
    def things(self) -> AsyncIterator[Thing]: ...

    @cm.method
    async def total(self, things: AsyncIterator[Thing]) -> int: ...

    @cm.method
    async def long(self, thing: Thing, data: bytes) -> bytes: ...

    @cm.method
    async def array(self, thing: Thing, data: cm.Dataspace) -> cm.Dataspace: ...

    @cm.method
    async def read(self, thing: Thing, file: cm.Descriptor) -> None: ...


class CarryingServer(Carrying):
    def __init__(self, bell, thing):
        self._bell, self._thing = bell, thing

    async def touch(self, thing):
        return await thing.touch(1)

    async def same(self, things):
        return things

    async def give(self):
        return [self._thing() for _ in range(3)]

    async def refuse(self, thing):
        raise Refused

    async def hold(self, thing):
        await asyncio.get_running_loop().create_future()

    async def ring(self, signal):
        signal.send()

    async def bell(self):
        return self._bell

    async def things(self):
        for _ in range(3):
            yield self._thing()

    async def total(self, things):
        # A server logs what is none of its errors, and pytest keeps what is logged.
        with contextlib.suppress(cm.Error):
            return sum([await thing.touch(1) async for thing in things])
        return 0

    async def long(self, thing, data):
        return data

    async def array(self, thing, data):
        return data

    async def read(self, thing, file):
        raise AssertionError


async def _no_one_rings():
    pass


class Carried:
    """A world of two bridges, and what is called there.

    Attributes:
        far: what is called.
    """

    def __init__(self, world):
        self.world = world
        self._bell = world.things.on_signal(_no_one_rings)

    async def begin(self):
        """Its far side is there, and all that is made once."""
        served = CarryingServer(self._bell, lambda: bridge_in_process.ThingServer(self.world.served.ran))
        self.served = self.world.entrypoint.manage(served)
        self.token = await self.world.far.export(self.served)
        self.far = (await self.world.near.connect(self.token)).cast(Carrying)
        self.world.work = None

    async def touch(self):
        await self.far.touch(self.world.thing())

    async def same(self):
        await self.far.same([self.world.thing() for _ in range(3)])

    async def give(self):
        await self.far.give()

    async def refuse(self):
        with pytest.raises(Refused):
            await self.far.refuse(self.world.thing())

    async def hold(self):
        await self.far.hold(self.world.thing())

    async def ring(self):
        await self.far.ring(self._bell)

    async def bell(self):
        await self.far.bell()

    async def things(self):
        async for thing in self.far.things():
            await thing.touch(1)

    async def total(self):
        async def things():
            for _ in range(3):
                yield self.world.thing()

        assert await self.far.total(things()) == 3

    async def long(self):
        await self.far.long(self.world.thing(), LONG)

    async def array(self):
        with cm.Dataspace.from_buffer(LONG) as data:
            (await self.far.array(self.world.thing(), data)).close()

    async def read(self):
        with open("/dev/null", "rb") as file, pytest.raises(cm.ArgumentError, match="`file`"):
            await self.far.read(self.world.thing(), file)

    async def connect(self):
        await self.world.near.connect(self.token)


def _alive():
    """How many objects there are of each class that has something of a call's, or is one's.

    Tasks are not: they wait for more work, some of them.
    """
    return Counter(
        f"{type(one).__module__}.{type(one).__name__}"
        for one in gc.get_objects()
        if (type(one).__module__.startswith("capmarshal._bridge") and type(one) is not Hand)
        or type(one) in (cm.Capability, cm.Dataspace, cm.Descriptor, cm.Signal)
        or issubclass(type(one), BaseException)
    )


async def _left(world):
    """What the bridges have of each other's, and what there is, as soon as nothing changes any more."""
    await asyncio.sleep(RELEASED)
    had = None
    while had != (had := (world.counts(), _alive())):
        await asyncio.sleep(RELEASED)
    return had


async def _cut(call, steps):
    """Gives a call up after so many steps of the loop; whether it had ended before."""
    task = asyncio.create_task(call())
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    ended = task.done()
    task.cancel()
    await asyncio.wait([task])
    if ended:
        task.result()
    return ended


@pytest.fixture
def run(caplog):
    """run(program): in such a world; its bridges have logged no fault."""

    async def whole(world, program):
        carried = Carried(world)
        await carried.begin()
        # What the key of their link was made of is gone then.
        await asyncio.sleep(_GOOD_FOR)
        await program(carried)
        carried.far = carried.served = None
        await world.idle()

    caplog.set_level(logging.WARNING, "capmarshal")
    return lambda program: bridge_in_process.run(lambda world: whole(world, program), caplog=caplog)


@pytest.mark.parametrize(
    "which", ["touch", "same", "give", "refuse", "ring", "bell", "things", "total", "long", "array", "read", "connect"]
)
def test_a_call_that_is_given_up_at_any_step(run, which):
    """Of the loop in which both bridges are, the client and the server: nothing that it has carried stays."""

    async def program(carried):
        call = getattr(carried, which)
        await call()
        before = await _left(carried.world)
        for steps in itertools.count():
            assert steps < STEPS
            if await _cut(call, steps):
                break
        assert steps
        assert await _left(carried.world) == before

    run(program)


@pytest.mark.parametrize("which", ["same", "give"])
def test_a_call_that_is_given_up_while_its_table_is_taken(run, which, monkeypatch):
    """One thing of it at a time: of what was not taken, the other is told that nobody has it."""
    monkeypatch.setattr(crossing, "_A_TURN", 1)
    test_a_call_that_is_given_up_at_any_step(run, which)


def test_a_call_that_runs_is_given_up_at_any_step(run):
    """It would never end."""

    async def program(carried):
        await carried.touch()
        before = await _left(carried.world)
        for steps in range(UNTIL_IT_WAITS):
            assert not await _cut(carried.hold, steps)
        for seconds in (0.2, 0.3, 1.5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await carried.hold()
            with pytest.raises(cm.CallTimeout), cm.timeout(seconds):
                await carried.hold()
        assert await _left(carried.world) == before

    run(program)


_BOUNDS = [
    ("far", "_incoming", "_most", 0, "touch"),
    ("far", "_imports", "_most", 0, "touch"),
    ("far", "_imports", "_most", 2, "same"),
    ("far", "_signals", "_most", 0, "ring"),
    ("far", "_exports", "_most", 1, "give"),
    ("far", "_incoming", "_max_bytes", 100, "long"),
    ("far", "crossing", "_max_dataspace", 100, "array"),
    ("near", "_exports", "_most", 2, "same"),
    ("near", "_imports", "_most", 1, "give"),
    ("near", "_signals", "_most", 0, "bell"),
    ("near", "_outgoing", "_max_bytes", 100, "long"),
    ("near", "crossing", "_max_dataspace", 100, "array"),
]


@pytest.mark.parametrize(("side", "part", "bound", "most", "which"), _BOUNDS)
def test_a_call_that_is_refused(run, side, part, bound, most, which):
    """By a bound of either bridge's: before it is sent, as it comes, and as its result does."""

    async def program(carried):
        await getattr(carried, which)()
        before = await _left(carried.world)
        [partner] = getattr(carried.world, side)._partners
        bounded = getattr(partner, part)
        usual = getattr(bounded, bound)
        setattr(bounded, bound, most)
        for _ in range(3):
            with pytest.raises((cm.TooLarge, cm.Disconnected)):
                await getattr(carried, which)()
        setattr(bounded, bound, usual)
        assert await _left(carried.world) == before

    run(program)


def test_a_call_that_is_not_sent_in_time(run):
    """The engine says all the time that nobody is there."""

    async def program(carried):
        world = carried.world
        await carried.touch()
        before = await _left(world)
        world.network.part([world.near._engine], [world.far._engine], noticed=True)
        with pytest.raises(cm.CallTimeout), cm.timeout(0.5):
            await carried.touch()
        world.network.join()
        assert await _left(world) == before

    run(program)


@pytest.mark.parametrize("lost", [Kind.CALL, Kind.CALL | ANSWER, Kind.DONE, Kind.FETCH, Kind.FETCH | ANSWER, None])
@pytest.mark.parametrize("bye", [True, False])
def test_calls_that_end_with_their_link(run, lost, bye):
    """What its callers have let go of is held by none of them any more."""

    async def program(carried):
        given, thing = [], carried.world.thing

        def told_of():
            made = thing()
            given.append(weakref.ref(cm.capability(made)))
            return made

        carried.world.thing = told_of
        carried.world.network.judge = lambda flight: "lose" if bridge_in_process.kind(flight) == lost else "carry"
        calls = [asyncio.create_task(getattr(carried, which)()) for which in ("hold", "touch", "long", "array")]
        await asyncio.sleep(1.5)
        [far] = carried.world.far._partners
        if bye:
            await far.close("the test")
        carried.world.network.judge = lambda _flight: "lose"
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(ended[0], cm.Disconnected)
        del calls, ended
        carried.world.network.release()
        await carried.world.released()
        assert len(given) >= 4
        assert not [one for one in given if one() is not None]
        del carried.world.thing

    run(program)


def test_what_waits_for_an_answer_that_never_comes():
    """It is told by a timer, and in no task: whoever waits is not in a circle with what it is told."""

    async def waits(answers, mine):
        with answers.expect(lambda _body: True) as awaited, contextlib.suppress(Unanswered):
            await awaited.wait(0.01)
        return mine

    async def program():
        mine = Refused()
        kept = weakref.ref(mine)
        waiting = asyncio.create_task(waits(AwaitedAnswers(), mine))
        del mine
        await asyncio.wait([waiting])
        del waiting
        errors = [one for one in gc.get_objects() if type(one) is Unanswered]
        assert (kept(), errors) == (None, [])

    gc.collect()
    gc.disable()
    try:
        asyncio.run(program())
    finally:
        gc.enable()


def _tasks():
    """How many there are of each sort, but for those that wait for more work."""
    names = Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())
    del names["Hand._work"]
    return names


# None of them has a method that calls back: what becomes of that as a link is lost is for its server's log.
_ONE_WAY = ["hold", "same", "give", "long", "array", "ring", "connect"]


@pytest.mark.parametrize("closed", [None, "near", "far"])
def test_tasks_of_calls_end(run, closed):
    """Of hundreds that are given up, and of those during which an engine is closed."""

    async def program(carried):
        for which in _ONE_WAY[1:]:
            await getattr(carried, which)()
        await asyncio.sleep(RELEASED)
        before, chosen = _tasks(), random.Random(1)
        calls = []
        for _ in range(500):
            calls.append(asyncio.create_task(getattr(carried, chosen.choice(_ONE_WAY))()))
            for _ in range(chosen.randrange(40)):
                await asyncio.sleep(0)
            calls[-1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if closed is not None:
            calls = [asyncio.create_task(getattr(carried, chosen.choice(_ONE_WAY))()) for _ in range(50)]
            await asyncio.sleep(0.01)
            await getattr(carried.world, closed)._engine.close(within=0)
            await asyncio.gather(*calls, return_exceptions=True)
        del calls
        await asyncio.sleep(RELEASED)
        assert not _tasks() - before
        assert not [one for one in gc.get_objects() if type(one) is Hand and one._job is not None]

    run(program)
