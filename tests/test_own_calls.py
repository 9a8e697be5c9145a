"""Calls in an event loop whose entrypoints are of the same process: its methods wait for its methods."""

from __future__ import annotations

import re
import threading

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from capmarshal._async_client.calling import CALLS_MAX
from capmarshal._capabilities.capability import open_door_of
from loops import each_loop, run
from patience import PATIENCE

# Seconds; longer than a call takes, shorter than anybody minds.
SHORT = 0.2


class Ring(cm.Interface):
    """Calls itself."""

    @cm.method
    async def down(self, me: cm.Capability, depth: int) -> int: ...

    @cm.method
    async def fan(self, me: cm.Capability, calls: int) -> None: ...


class RingServer(Ring):
    async def down(self, me, depth):
        if not depth:
            return 0
        await anyio.lowlevel.checkpoint()
        return 1 + await me.cast(Ring).down(me, depth - 1)

    async def fan(self, me, calls):
        async with anyio.create_task_group() as tasks:
            for _ in range(calls):
                tasks.start_soon(me.cast(Ring).down, me, 1)


async def _many(capability, calls, depth):
    """So many at a time, each so deep; how many were answered."""
    answers = []

    async def call():
        answers.append(await capability.cast(Ring).down(capability, depth))

    async with anyio.create_task_group() as tasks:
        for _ in range(calls):
            tasks.start_soon(call)
    assert answers == [depth] * calls


@each_loop
@pytest.mark.parametrize(("calls", "depth"), [(300, 1), (CALLS_MAX, 3), (1, 200)])
def test_calls_wait_for_those_that_they_make(loop, calls, depth):
    """However many: what is made by a method has no turn to wait for that the method's own caller has."""

    async def main():
        async with aio.Entrypoint("own") as entrypoint:
            await _many(entrypoint.manage(RingServer()), calls, depth)

    run(loop, main)


@each_loop
def test_limits_are_for_others(loop):
    """A process does not refuse its own channels, which it could wait for for ever."""

    async def main():
        async with aio.Entrypoint("own", limits=cm.Limits(channels=4)) as entrypoint:
            await _many(entrypoint.manage(RingServer()), 1, 20)

    run(loop, main)


@each_loop
def test_one_method_has_a_bounded_number_of_channels(loop):
    """As a loop has for all else: its calls have turns of their own, and so have theirs."""

    async def main():
        async with aio.Entrypoint("own") as entrypoint:
            capability = entrypoint.manage(RingServer())
            await capability.cast(Ring).fan(capability, 300)
            return len(open_door_of(capability).idle)

    # Its own, those of its calls, and theirs.
    assert CALLS_MAX < run(loop, main) <= 1 + 2 * CALLS_MAX


@each_loop
def test_a_full_table_ends_what_would_go_deeper(loop, fork):
    """With an error that says so."""

    async def main():
        async with aio.Entrypoint("own") as entrypoint:
            capability = entrypoint.manage(RingServer())
            with pytest.raises(cm.RemoteError, match="RLIMIT_NOFILE"):
                await capability.cast(Ring).down(capability, 100)

    fork(lambda: run(loop, main), table=150).result()


# ------------------------------------------------------------------------------------------------- what errors say


class Slow(cm.Interface):
    """Of a blocking entrypoint: longer than its callers have time."""

    @cm.method
    def wait(self) -> None: ...


class AwaitedSlow(cm.Interface):
    wait = cm.awaitable(Slow.wait)

    @cm.method
    async def wait_for(self, other: AwaitedSlow) -> str: ...


class SlowServer(Slow):
    def __init__(self):
        self.over = threading.Event()

    def wait(self):
        assert self.over.wait(PATIENCE)


class AwaitedSlowServer(AwaitedSlow):
    async def wait(self):
        await anyio.sleep_forever()

    async def wait_for(self, other):
        return await _late(other)


async def _late(slow):
    """What a CallTimeout says, without the time that it took."""
    with pytest.raises(cm.CallTimeout) as caught, cm.timeout(SHORT):
        await slow.wait()
    return re.sub(r"in [0-9.]+ s", "in N s", str(caught.value))


@each_loop
def test_a_loop_that_serves_is_not_said_to_take_no_other_call(loop):
    """As a thread does not while its method waits: not of what the program awaits, nor of a method of its own."""

    async def main():
        async with aio.Entrypoint("own") as entrypoint:
            with cm.Entrypoint("thread") as other:
                server = SlowServer()
                slow = other.manage(server).cast(AwaitedSlow)
                itself = await _late(slow)
                method = await entrypoint.manage(AwaitedSlowServer()).cast(AwaitedSlow).wait_for(slow)
                server.over.set()
                return itself, method

    said = "AwaitedSlow.wait, entrypoint 'thread': no answer in N s (the deadline of cm.timeout(0.2))"
    assert run(loop, main) == (f"{said}; the call may have run",) * 2


@each_loop
def test_of_an_entrypoint_that_nobody_serves_it_says_how(loop):
    """As it is done in a loop."""

    async def main():
        entrypoint = aio.Entrypoint("idle")
        said = await _late(entrypoint.manage(AwaitedSlowServer()).cast(AwaitedSlow))
        await entrypoint.aclose()
        return said

    assert run(loop, main).endswith(
        "; nobody serves entrypoint 'idle', which is of this process: enter it (async with), or await serve_forever()"
    )
