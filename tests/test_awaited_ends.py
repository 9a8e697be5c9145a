"""How calls that are awaited end before their time, in each event loop: cancelled, with their server, by Ctrl-C.

Whatever it is: descriptors are what they were, at both sides, and the next call works.
"""

from __future__ import annotations

import functools
import os
import signal

import anyio
import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand
from capmarshal._async_client import waiting
from capmarshal._capabilities.capability import capability_behind, open_door_of
from capmarshal._descriptors import reaper
from loops import in_thread
from loops import run as run_in
from patience import PATIENCE, until

MIB = 1 << 20


class AwaitedWork(cm.Interface):
    double = cm.awaitable(by_hand.Work.double)
    block = cm.awaitable(by_hand.Work.block)
    count = cm.awaitable(by_hand.Work.count)
    pipes = cm.awaitable(by_hand.Work.pipes)


class AwaitedBulk(cm.Interface):
    check = cm.awaitable(hand.Bulk.check)
    make = cm.awaitable(hand.Bulk.make)


class Waits:
    """Counts the waits of awaited calls, and cancels a scope as one begins."""

    def __init__(self, monkeypatch):
        self.seen, self.at, self.scope = 0, 0, None
        happens = waiting.happens

        async def counted(wait, watch=None):
            self.seen += 1
            if self.seen == self.at:
                self.scope.cancel()
            return await happens(wait, watch)

        monkeypatch.setattr(waiting, "happens", counted)

    async def cancel_at(self, place, call):
        """Whether a call was cancelled at the wait of that place; how many waits there were."""
        self.seen, self.at = 0, place
        with anyio.CancelScope() as self.scope:
            await call()
        return self.scope.cancelled_caught, self.seen


def close_each(files):
    for file in files:
        file.close()


def some_of(total):
    """The first waits, one in the middle, and the last one."""
    return sorted({1, 2, 3, total // 2, total})


def all_of(total):
    return range(1, total + 1)


@pytest.mark.parametrize(("size", "places"), [(64 * MIB, some_of), (MIB, all_of)], ids=["64 MiB", "1 MiB"])
@pytest.mark.parametrize("way", ["sent", "received"])
def test_a_long_call_that_is_cancelled_at_any_wait(run, fork, monkeypatch, open_descriptors, way, size, places):
    """With a thousand descriptors: all that was made for it is closed, and the next call works."""
    waits = Waits(monkeypatch)
    limits = {"max_bytes": 128 * MIB, "max_descriptors": 2000}
    with hand.bulk_process(fork, limits) as (_, blocking), cm.Descriptor(os.memfd_create("file")) as file:
        proxy = capability_behind(blocking).cast(AwaitedBulk)
        data = hand.pattern(size)

        async def call():
            if way == "sent":
                _, inodes = await proxy.check(data, [file] * 1000)
                assert len(inodes) == 1000
            else:
                made, files = await proxy.make(size, 1000)
                for made_one in files:
                    made_one.close()
                assert len(made) == size

        async def at_each():
            cancelled, total = await waits.cancel_at(0, call)
            assert not cancelled
            before, at_server = len(open_descriptors()), blocking.state().open
            for place in places(total):
                cancelled, seen = await waits.cancel_at(place, call)
                # Not always as many: that depends on how quick the other side is.
                assert cancelled == (seen >= place)
                assert blocking.size(b"123") == 3
                assert reaper.wait(PATIENCE)
                assert len(open_descriptors()) <= before
                until(lambda: blocking.state().open <= at_server)
            return total

        assert run(at_each) > 0


# -------------------------------------------------------------------------------------------- what else ends a call


def test_a_server_killed_while_it_works(run, fork):
    """Its client wakes at once, and is told in a thread's words that the call may have run; the next one did not."""
    with by_hand.server_process(fork) as (process, capability), by_hand.pipe() as (started, began):
        proxy = capability.cast(AwaitedWork)

        async def kill():
            assert await in_thread(started.read, 1) == b"."
            process.kill()

        async def call():
            with by_hand.pipe() as (going, _go):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(kill)
                    with pytest.raises(
                        cm.Disconnected,
                        match=r"block, entrypoint 'elsewhere': the server closed its entrypoint, or ended",
                    ) as ran:
                        await proxy.block(began, going)
            with pytest.raises(cm.Disconnected, match=r"double, entrypoint 'elsewhere': the server is gone") as gone:
                await proxy.double(1)
            return ran.value.ran, gone.value.ran

        assert run(call) == ("maybe", "no")
        capability.close()


@pytest.mark.parametrize("known", [True, False], ids=["on a channel", "at the door"])
def test_a_server_killed_before_it_reads(run, fork, known):
    """The call certainly never ran, on a channel that the server knows and on one that it does not."""
    with by_hand.server_process(fork) as (process, capability):
        proxy = capability.cast(AwaitedWork)

        async def kill():
            await anyio.wait_all_tasks_blocked()
            process.kill()

        async def call():
            if known:
                await proxy.double(1)
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill)
                with pytest.raises(cm.Disconnected, match="the server is gone") as caught:
                    await proxy.double(1)
            return caught.value.ran

        assert run(call) == "no"
        capability.close()


def test_a_fork_while_a_call_is_awaited(run, fork):
    """The child has no channel of its parent's, calls on one of its own, and the parent's call goes on."""
    with by_hand.server_process(fork) as (_, capability), by_hand.pipe() as (started, began):
        proxy = capability.cast(AwaitedWork)

        def in_child(go):
            # Its copy would keep the server.
            go.close()
            left = len(open_door_of(capability).idle)
            # Another thread has no event loop.
            calls = by_hand.Concurrent(run_in, "trio", proxy.double, 4)
            return left, calls.outcome(), capability.cast(by_hand.Work).double(5)

        async def call():
            await proxy.double(1)
            with by_hand.pipe() as (going, go):
                async with anyio.create_task_group() as tasks:
                    results = []

                    async def block():
                        results.append(await proxy.block(began, going))

                    tasks.start_soon(block)
                    assert await in_thread(started.read, 1) == b"."
                    child = fork(functools.partial(in_child, go))
                    go.close()
                    results.append(await in_thread(child.result))
            return results

        assert run(call) == [1, (0, 8, 10)]
        capability.close()


def test_ctrl_c(run, fork):
    """Ends the loop, the first time; the call's channel is gone, and the next loop's call works."""
    with by_hand.server_process(fork) as (_, capability), by_hand.pipe() as (started, began):
        proxy = capability.cast(AwaitedWork)
        with by_hand.pipe() as (going, go):

            def interrupt():
                assert started.read(1) == b"."
                os.kill(os.getpid(), signal.SIGINT)

            interrupting = by_hand.Concurrent(interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(proxy.block, began, going)
            interrupting.outcome()
            assert not open_door_of(capability).idle
            go.close()
        assert run(proxy.double, 4) == 8
        capability.close()
