"""Calls in an event loop whose entrypoints are of the same process: its methods wait for its methods."""

from __future__ import annotations

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from capmarshal._async.calling import CALLS_MAX
from capmarshal._capabilities.capability import open_door_of
from loops import each_loop, run


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
