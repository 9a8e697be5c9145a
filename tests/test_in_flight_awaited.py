"""ETOOMANYREFS where calls are awaited: they wait as those of threads do, and keep nobody from running."""

from __future__ import annotations

import gc

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from jam import Jam, as_ordinary, count_open, says_whose_limit, surplus
from loops import each_loop
from loops import run as run_in


class AwaitedWork(cm.Interface):
    double = cm.awaitable(by_hand.Work.double)
    count = cm.awaitable(by_hand.Work.count)


@each_loop
@pytest.mark.parametrize("first", [True, False], ids=["knock", "argument"])
def test_an_awaited_call_waits_too_and_others_run(fork, loop, first):
    """It is a task of the same loop that drains the queue; and at its deadline a call says whose limit it was."""

    def client():
        with by_hand.serving() as capability, by_hand.temporary() as file, Jam() as jam:
            proxy = capability.cast(AwaitedWork)

            async def call():
                if not first:
                    jam.drain()
                    assert await proxy.count([file]) == 1
                with Jam() as second:
                    with pytest.raises(cm.TooManyInFlight) as caught, cm.timeout(0.5):
                        await proxy.count([file])
                    with anyio.move_on_after(0.01) as scope:
                        await proxy.count([file])
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(proxy.count, [file])
                        await anyio.wait_all_tasks_blocked()
                        second.drain()
                        jam.drain()
                return says_whose_limit(caught.value), scope.cancelled_caught

            before = count_open()
            outcome = run_in(loop, call)
            for channel in open_door_of(capability).idle:
                channel.drop()
            # What an error has of its loop, its traceback keeps; and the loop keeps what its calls waited at.
            gc.collect()
            return outcome, surplus(before)

    assert as_ordinary(fork, client) == ((True, True), 0)
