"""``aio.wait_signal()``: signals that are waited for in event loops (`_async_client/signals`)."""

from __future__ import annotations

import socket

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from capmarshal._capabilities.capability import open_door_of
from loops import each_loop, run
from patience import PATIENCE


@pytest.fixture
def receiver():
    with cm.SignalReceiver() as made:
        yield made


async def waiting(receiver, count):
    while receiver._waiting < count:
        await anyio.sleep(0)


@each_loop
def test_another_process_tells_that_something_has_happened(loop, receiver, fork):
    """The event loop goes on meanwhile; what lies there already is not waited for."""
    sent, seen = receiver.signal, []

    async def main():
        async def others():
            await waiting(receiver, 1)
            seen.append("others")
            fork(sent.send)

        async with anyio.create_task_group() as group:
            group.start_soon(others)
            assert await aio.wait_signal(receiver, PATIENCE) == 1
        sent.send()
        sent.send()
        assert await aio.wait_signal(receiver, 0) == 2

    run(loop, main)
    assert seen == ["others"]


@each_loop
def test_what_is_no_receiver(loop, receiver):
    async def main():
        with pytest.raises(TypeError, match=r"cm\.SignalReceiver, not by <Signal .*>, which is what it is sent by$"):
            await aio.wait_signal(receiver.signal)
        with pytest.raises(TypeError, match=r"cm\.SignalReceiver, not by 'signal'$"):
            await aio.wait_signal("signal")

    run(loop, main)


@each_loop
def test_several_tasks_and_threads_may_wait(loop, receiver):
    """Each signal wakes one of them at least."""
    woken = []

    async def wait():
        woken.append(await aio.wait_signal(receiver, PATIENCE))

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
            group.start_soon(anyio.to_thread.run_sync, receiver.wait, PATIENCE)
            await waiting(receiver, 4)
            while receiver._waiting:
                receiver.signal.send()
                await anyio.sleep(0)

    run(loop, main)
    assert len(woken) == 3


@each_loop
def test_deadlines_and_errors_are_as_in_threads(loop, receiver):
    async def main():
        for timeout in (0, 0.01):
            with pytest.raises(cm.CallTimeout, match=rf"^no signal came in {timeout} s$"):
                await aio.wait_signal(receiver, timeout)
        with pytest.raises(cm.CallTimeout, match="before the deadline of cm"), cm.timeout(0.01):
            await aio.wait_signal(receiver)
        with pytest.raises(ValueError, match="-1"):
            await aio.wait_signal(receiver, -1)
        with socket.socket(fileno=socket.dup(open_door_of(cm.capability(receiver.signal)).number)) as door:
            door.shutdown(socket.SHUT_WR)
        with pytest.raises(cm.Disconnected, match="no signal will come"):
            await aio.wait_signal(receiver)

    run(loop, main)


@each_loop
def test_one_that_is_cancelled_has_taken_nothing(loop, receiver):
    async def main():
        with anyio.move_on_after(0.01) as scope:
            await aio.wait_signal(receiver)
        assert scope.cancelled_caught
        receiver.signal.send()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await aio.wait_signal(receiver)
        assert scope.cancelled_caught
        assert await aio.wait_signal(receiver, 0) == 1

    run(loop, main)


@each_loop
def test_closing_wakes_all_who_wait(loop, receiver):
    async def wait():
        with pytest.raises(cm.Closed, match="this SignalReceiver was closed"):
            await aio.wait_signal(receiver)

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
            await waiting(receiver, 3)
            receiver.close()
        await wait()

    run(loop, main)


@each_loop
def test_an_event_loops_own_reader(loop, receiver):
    """What an event loop does to the number that it watches is nobody else's concern."""

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.wait_readable, receiver.fileno())
            await anyio.sleep(0)
            receiver.signal.send()
        assert receiver.wait(0) == 1

    run(loop, main)
