"""Two bridges through random lives of what is between them: each call runs once at most, ends, and leaves nothing.

All in one event loop whose time leaps, so leases take none.  What a call was told is compared with what has run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import bridge_in_process
import capmarshal as cm
import leaping_loop
from bridge_in_process import PLENTY, Kept, Work, settle

EXAMPLES = 10

places = st.integers(0, 99)


class Faults(logging.Handler):
    """What bridges log of what they do wrong."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        self.found.append(f"{record.getMessage()} {record.exc_info}")


class Lives(RuleBasedStateMachine):
    """Calls from the near bridge to the far one, and by what they bring, back."""

    def __init__(self):
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.faults = Faults()
        logger = logging.getLogger("capmarshal")
        logger.addHandler(self.faults)
        self.stack.callback(logger.removeHandler, self.faults)
        self.runner = self.stack.enter_context(leaping_loop.runner())
        self.kept = Kept(bridge_in_process.World.made())
        self.world = self.runner.run(self.kept.enter())
        self.calls = {}
        self.number = 0
        self.things = []
        self.network = self.world.network

    def do(self, awaitable):
        async def bounded():
            async with asyncio.timeout(20 * PLENTY):
                return await awaitable

        return self.runner.run(bounded())

    def call(self, method, *arguments):
        self.number += 1
        number = self.number

        async def begin():
            work = self.world.work
            if work is None:
                return

            async def make():
                return await getattr(work, method)(number, *arguments)

            self.calls[number] = asyncio.create_task(make())
            await settle()

        self.do(begin())

    # Calls ----------------------------------------------------------------------------------------------------------

    @rule(method=st.sampled_from(["run", "hold", "give"]))
    def call_plainly(self, method):
        self.call(method)

    @rule(method=st.sampled_from(["take", "same", "hold_thing"]))
    def call_with_a_capability(self, method):
        async def thing():
            return self.world.thing()

        self.call(method, self.do(thing()))

    @rule()
    def call_with_much(self):
        self.call("blob", bytes(600_000))

    @rule(number=places)
    def call_with_what_came(self, number):
        if self.things:
            self.call("same", self.things[number % len(self.things)])

    @rule(number=places)
    def let_go(self, number):
        async def go():
            self.world.served.let_go(number % (self.number + 1))
            await settle()

        self.do(go())

    @precondition(lambda self: self.calls)
    @rule(place=places)
    def give_up(self, place):
        async def cancel():
            task = list(self.calls.values())[place % len(self.calls)]
            task.cancel()
            await settle()

        self.do(cancel())

    @rule()
    def take_what_came(self):
        for task in self.calls.values():
            if task.done() and not task.cancelled() and task.exception() is None and hasattr(task.result(), "touch"):
                self.things.append(task.result())
        del self.things[:-3]

    @rule()
    def drop_what_came(self):
        self.things.clear()

    # The network ----------------------------------------------------------------------------------------------------

    @rule(holding=st.booleans())
    def hold(self, holding):
        async def change():
            self.network.holding = holding
            await settle()

        self.do(change())

    # What is held depends on what a moment is: such a rule may do nothing, and is drawn all the same.
    @rule(place=places, again=st.booleans())
    def one_arrives(self, place, again):
        async def arrive():
            if self.network.held:
                self.network.arrive(place % len(self.network.held), again=again)
            await settle()

        self.do(arrive())

    @rule(place=places)
    def one_is_lost(self, place):
        if self.network.held:
            self.network.lose(place % len(self.network.held))

    @rule(weather=st.sampled_from(["calm", "lossy", "slow", "twice", "all"]), seed=st.integers(0, 1000))
    def weather(self, weather, seed):
        randomly = random.Random(seed)

        def judge(flight):
            kinds = ["lossy", "slow", "twice"] if weather == "all" else [weather]
            if self.network.holding:
                return "hold"
            if "lossy" in kinds and randomly.random() < 0.2:
                return "lose"
            later = asyncio.get_running_loop().call_later
            if "twice" in kinds and randomly.random() < 0.3:
                later(4 * randomly.random(), self.network.land, flight)
            if "slow" in kinds and randomly.random() < 0.5:
                later(1.5 * randomly.random(), self.network.land, flight)
                return "later"
            return "carry"

        self.network.judge = judge

    @rule()
    def all_that_is_held_arrives(self):
        async def arrive():
            held, self.network.held = self.network.held, []
            for flight in held:
                self.network.land(flight)
            await settle()

        self.do(arrive())

    @rule(noticed=st.booleans())
    def part(self, noticed):
        async def change():
            near, far = self.engines()
            self.network.part([near], [far], noticed=noticed)
            await settle()

        self.do(change())

    @rule()
    def join(self):
        async def change():
            self.network.join()
            await settle()

        self.do(change())

    @rule(which=st.integers(0, 1))
    def lose_a_node(self, which):
        self.engines()[which].disconnect()

    @rule()
    def have_nodes_again(self):
        async def change():
            for engine in self.engines():
                engine.connect()
            await settle()

        self.do(change())

    @rule(seconds=st.sampled_from([0.1, 0.3, 1, 1, 3, 12]))
    def time_passes(self, seconds):
        self.do(asyncio.sleep(seconds))

    @rule()
    def connect_again(self):
        async def change():
            with contextlib.suppress(cm.Disconnected):
                self.world.work = (await self.world.near.connect(self.world.token)).cast(Work)

        self.do(change())

    @rule()
    def start_the_far_bridge_again(self):
        async def change():
            await self.world.restart_far()

        self.do(change())

    def engines(self):
        return self.world.near._engine, self.world.far._engine

    # What is true in the end ----------------------------------------------------------------------------------------

    def teardown(self):
        try:
            self.do(self.check())
            self.runner.run(self.kept.leave())
        finally:
            self.kept = self.world = self.network = None
            self.calls.clear()
            self.things.clear()
            self.stack.close()

    async def check(self):
        for engine in self.engines():
            engine.connect()
        self.network.join()
        held, self.network.held = self.network.held, []
        self.network.release()
        for number in range(self.number + 1):
            self.world.served.let_go(number)
        if self.calls:
            await asyncio.wait(self.calls.values(), timeout=PLENTY)
        assert all(task.done() for task in self.calls.values()), "somebody waits for ever"
        # What was held all the time comes now, and once more.
        for flight in [*held, *held]:
            self.network.land(flight)
        await asyncio.sleep(5)
        self.compare(self.world.served.ran)
        self.calls.clear()
        self.things.clear()
        self.world.work = None
        gc.collect()
        await self.world.released()
        assert not self.faults.found, self.faults.found

    def compare(self, ran):
        """What each call was told with what has run."""
        assert all(count == 1 for count in ran.values()), ran
        for number, task in self.calls.items():
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                assert ran[number] == 1
            else:
                assert isinstance(error, (cm.Disconnected, cm.StaleCapability)), error
                if isinstance(error, cm.Disconnected) and error.ran == "no":
                    assert not ran[number]


def test_random_lives():
    run_state_machine_as_test(Lives, settings=settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None))
