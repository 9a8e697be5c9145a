"""Channels that wait in asyncio's event loops: in one epoll set for each loop, which goes with the loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
import uvloop

import by_hand
import capmarshal as cm
from capmarshal._async_client.asyncio_watch import AsyncioWatch
from capmarshal._capabilities.capability import open_door_of
from patience import PATIENCE, until

each_loop = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class AwaitedWork(cm.Interface):
    double = cm.awaitable(by_hand.Work.double)
    block = cm.awaitable(by_hand.Work.block)


@pytest.fixture
def capability():
    with by_hand.serving() as served:
        yield served
        served.close()


@contextlib.contextmanager
def watching(monkeypatch):
    """Gives a list of what the watches of all event loops have taken; each look at one is an item."""
    taken, take = [], AsyncioWatch._take

    def counted(self):
        taken.append(self)
        take(self)

    with monkeypatch.context() as patched:
        patched.setattr(AsyncioWatch, "_take", counted)
        yield taken


async def answered(proxy, value=4):
    return await asyncio.wait_for(proxy.double(value), PATIENCE)


@each_loop
def test_a_channel_is_used_by_two_event_loops_and_a_thread_in_turn(new_loop, capability, monkeypatch):
    """Each has a watch of its own, which stays, and none is told of what the others wait for."""
    awaited, blocking = capability.cast(AwaitedWork), capability.cast(by_hand.Work)
    monkeypatch.setattr("capmarshal._async_client.calling._POLL", 0)
    with contextlib.closing(new_loop()) as one, contextlib.closing(new_loop()) as other, watching(monkeypatch) as taken:
        for value in range(20):
            assert one.run_until_complete(answered(awaited, value)) == 2 * value
            assert blocking.double(value) == 2 * value
            assert other.run_until_complete(answered(awaited, value)) == 2 * value
        # The others' answers have come on a channel that is in both sets.
        assert len(taken) <= 40
    assert len(open_door_of(capability).idle) == 1


@each_loop
def test_a_channel_that_was_used_in_a_loop_wakes_it_once_at_most_while_others_use_it(new_loop, capability, monkeypatch):
    """It stays in the loop's set, so that the next call need not enter it: until something comes for somebody else."""
    awaited, blocking = capability.cast(AwaitedWork), capability.cast(by_hand.Work)
    monkeypatch.setattr("capmarshal._async_client.calling._POLL", 0)

    async def main():
        for _ in range(3):
            assert await answered(awaited) == 8
            before = len(taken)
            assert await asyncio.to_thread(lambda: [blocking.double(value) for value in range(50)]) == [
                *range(0, 100, 2)
            ]
            # Those of the thread may not have been seen yet.
            await asyncio.sleep(0.001)
            # One; and a loop that comes late to it sees what has come meanwhile.
            assert len(taken) <= before + 5
        assert len(open_door_of(capability).idle) == 1

    with contextlib.closing(new_loop()) as loop, watching(monkeypatch) as taken:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())


@each_loop
def test_channels_that_end_while_they_are_idle_keep_no_loop_busy(new_loop, monkeypatch):
    """Their server has gone: that is reported once, and the next call finds it out."""
    monkeypatch.setattr("capmarshal._async_client.calling._POLL", 0)

    async def main():
        with by_hand.serving() as served:
            proxy = served.cast(AwaitedWork)
            assert await asyncio.gather(*(answered(proxy) for _ in range(5))) == [8] * 5
        before = len(taken)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert len(taken) <= before + 5
        with pytest.raises(cm.Disconnected):
            await answered(proxy)
        served.close()

    with contextlib.closing(new_loop()) as loop, watching(monkeypatch) as taken:
        loop.run_until_complete(main())


@each_loop
@pytest.mark.parametrize("ends", ["cancelled", "late"])
def test_who_holds_a_channel_of_a_call_that_ended_before_its_time_keeps_no_loop_busy(
    new_loop, ends, capability, fork, monkeypatch
):
    """A child that was forked while it waited has closed its copies, and can call by itself."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go), watching(monkeypatch) as taken:
        proxy = capability.cast(AwaitedWork)

        async def main():
            def block():
                return proxy.block(began, going)

            if ends == "late":
                with pytest.raises(cm.CallTimeout), cm.timeout(0.3):
                    await block()
            else:
                calling = asyncio.ensure_future(block())
                await asyncio.to_thread(started.read, 1)
                child = fork(lambda: call_anew(new_loop, capability, go))
                calling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calling
                children.append(child)
            seen = len(taken)
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert len(taken) <= seen + 2
            go.close()
            assert await answered(proxy) == 8

        children = []
        with contextlib.closing(new_loop()) as loop:
            loop.run_until_complete(main())
        for child in children:
            assert child.result() == 8


def call_anew(new_loop, capability, go):
    # Its copy, too, is what block() waits for: the server takes no other call before that.
    go.close()
    with contextlib.closing(new_loop()) as loop:
        return loop.run_until_complete(answered(capability.cast(AwaitedWork)))


@each_loop
def test_a_fork_while_a_call_waits_leaves_it_its_answer(new_loop, capability, fork):
    """The child closes what it has of the loop's; the parent's call is answered."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        proxy = capability.cast(AwaitedWork)

        async def main():
            calling = asyncio.ensure_future(proxy.block(began, going))
            await asyncio.to_thread(started.read, 1)
            child = fork(lambda: True)
            assert child.result()
            go.close()
            return await asyncio.wait_for(calling, PATIENCE)

        with contextlib.closing(new_loop()) as loop:
            assert loop.run_until_complete(main()) == 1


@each_loop
def test_a_loop_that_is_closed_while_a_call_waits_leaves_no_descriptor(
    new_loop, capability, open_descriptors, quiet_log
):
    """Nothing of it ever goes on: its epoll set goes with it."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        before = open_descriptors()
        loop = new_loop()

        async def main():
            calls.append(asyncio.ensure_future(capability.cast(AwaitedWork).block(began, going)))
            await asyncio.to_thread(started.read, 1)

        calls = []
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        assert open_descriptors() > before
        loop.close()
        calls.clear()
        del loop
        gc.collect()
        go.close()
        until(lambda: open_descriptors() <= before)
