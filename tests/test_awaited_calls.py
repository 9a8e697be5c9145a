"""Calls that are awaited, on each event loop: their answers, their deadlines, and the channels that they have."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import math
import os
import re
import select
import signal
import threading
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from capmarshal._async_client.calling import CALLS_MAX
from capmarshal._async_client.limiter import Limiter
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper
from capmarshal._descriptors.closing_jobs import THREADS_OF_SENDER, Sender
from capmarshal._kernel.native import FOREVER, NOW
from capmarshal._protocol import wire
from full_table import fill
from loops import LOOPS, in_thread
from loops import run as run_in
from patience import PATIENCE, until
from slow_closing import Slow, pipe_end


class Clock(cm.Interface):
    """Tells how long it may take."""

    @cm.method
    def remaining(self) -> float: ...

    @cm.method
    @cm.raises(TimeoutError)
    def take_all(self) -> None: ...


class ClockServer(Clock):
    def remaining(self):
        left = cm.remaining()
        return -1.0 if left == math.inf else left

    def take_all(self):
        select.select([], [], [], cm.remaining())
        raise TimeoutError("no time is left")


class AwaitedClock(cm.Interface):
    remaining = cm.awaitable(Clock.remaining)
    take_all = cm.awaitable(Clock.take_all)


class AwaitedWork(cm.Interface):
    double = cm.awaitable(by_hand.Work.double)
    block = cm.awaitable(by_hand.Work.block)


@pytest.fixture
def clock():
    with by_hand.serving(ClockServer()) as served:
        yield served
        served.close()


@pytest.fixture
def capability():
    with by_hand.serving() as served:
        yield served
        served.close()


def registered():
    """The numbers of which this process's epoll sets are to report something, and so its event loops."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry) == "anon_inode:[eventpoll]":  # noqa: PTH115 - which is no path
                information = Path("/proc/self/fdinfo", entry.name).read_text()
                of_each = re.findall(r"tfd: +(\d+) events: +([0-9a-f]+)", information)
                # Above that are the ways in which it is reported, as EPOLLONESHOT; without any events it is not.
                found |= {int(number) for number, events in of_each if int(events, 16) & 0xFFF_FFFF}
    return found


def test_calls_are_answered(run, capability):
    """More in a row than may be without a checkpoint."""

    async def forty():
        proxy = capability.cast(AwaitedWork)
        return [await proxy.double(number) for number in range(40)]

    assert run(forty) == list(range(0, 80, 2))


def test_others_run_while_calls_find_their_answers_at_once(run, capability):
    """No task keeps an event loop for itself."""

    async def calls(ended):
        proxy = capability.cast(AwaitedWork)
        for number in range(100):
            await proxy.double(number)
        ended.append(True)

    async def both():
        ended, turns = [], 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calls, ended)
            while not ended:
                await anyio.lowlevel.checkpoint()
                turns += 1
        return turns

    assert run(both) > 4


def test_a_full_table_is_waited_for_while_others_run(run, fork, capability):
    """What makes room in it may be what the event loop is to run next."""

    def client():
        async def call_in_full_table():
            proxy, slow = capability.cast(AwaitedWork), Slow()
            assert await proxy.double(1) == 2
            # In use, so that it does not make room.
            channel = open_door_of(capability).idle.pop()
            room = [pipe_end(), pipe_end()]
            taken, sender = fill(0), Sender()
            # Each thread that one sender may occupy.
            for _ in range(THREADS_OF_SENDER):
                reaper.close([slow], sender)
            reaper.close(room, sender)
            seen = []
            async with anyio.create_task_group() as group:

                async def call():
                    with cm.timeout(PATIENCE):
                        seen.append(await proxy.double(2))

                group.start_soon(call)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                slow.may_end.set()
            for number in taken:
                os.close(number)
            channel.drop()
            return seen

        return run(call_in_full_table)

    assert fork(client, table=128).result() == [4]


# ------------------------------------------------------------------------------------------------------- deadlines


class Starter(cm.Interface):
    """Starts a task that tells how long it may take."""

    @cm.method
    async def left(self, own_context: bool) -> list[float]: ...


class StarterServer(Starter):
    async def left(self, own_context):
        async def work():
            told = [cm.remaining()]
            with cm.timeout(None):
                return [*told, cm.remaining()]

        context = contextvars.Context() if own_context else None
        return await asyncio.create_task(work(), context=context)


def test_a_task_that_a_method_starts_has_its_deadline_unless_it_has_a_context_of_its_own():
    """As the page says how to get rid of it: another timeout does not."""

    async def both():
        async with aio.Entrypoint("starter") as entrypoint:
            proxy = entrypoint.manage(StarterServer()).cast(Starter)
            with cm.timeout(20):
                return await proxy.left(False), await proxy.left(True)

    inherited, free = asyncio.run(both())
    assert all(0 < left <= 20 for left in inherited), inherited
    assert free == [math.inf] * 2


def test_the_server_is_told_the_earlier_deadline(run, clock):
    """Of the cancel scopes and of cm.timeout; or that there is none."""

    async def each():
        proxy = clock.cast(AwaitedClock)
        with anyio.CancelScope(shield=True):
            never = await proxy.remaining()
        with anyio.fail_after(20):
            scope = await proxy.remaining()
            with cm.timeout(10):
                both = await proxy.remaining()
        with cm.timeout(10), anyio.fail_after(20):
            ours = await proxy.remaining()
        return never, scope, both, ours

    never, scope, both, ours = run(each)
    assert never == -1
    assert 10 < scope <= 20
    assert 0 < both <= 10
    assert 0 < ours <= 10


def test_each_deadline_ends_a_call_in_its_own_way(run, clock):
    """A cancel scope by a cancellation, also where the server was first to say so; cm.timeout by an error."""

    async def end():
        proxy = clock.cast(AwaitedClock)
        for _ in range(3):
            with anyio.move_on_after(0.03) as scope:
                await proxy.take_all()
            assert scope.cancelled_caught
        with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.03):
            await proxy.take_all()
        assert not caught.value.args
        # Whoever was first to find it: the caller, the server, or a call that was made there in turn.
        words = r"the deadline of cm\.timeout\(0\.03\)|before the deadline|no time is left|no answer"
        with pytest.raises(TimeoutError, match=words), cm.timeout(0.03):
            await proxy.take_all()

    run(end)


def test_an_answer_that_has_come_in_time_is_used(run, capability):
    """Also where the loop was kept busy by others until the deadline had passed."""

    async def answered():
        proxy = capability.cast(AwaitedWork)
        await proxy.double(1)
        (channel,) = open_door_of(capability).idle
        poll = select.poll()
        poll.register(channel.near.number, select.POLLIN)
        results = []

        async def block(began, going):
            with cm.timeout(0.2):
                results.append(await proxy.block(began, going))

        with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(block, began, going)
                passed = time.monotonic() + 0.21
                assert await in_thread(started.read, 1) == b"."
                go.close()
                until(lambda: poll.poll(0) and time.monotonic() > passed)
        return results

    assert run(answered) == [1]


class Relay(cm.Interface):
    """Asks another one."""

    @cm.method
    async def ask(self, clock: AwaitedClock) -> float: ...


class RelayServer(Relay):
    async def ask(self, clock):
        return await clock.remaining()


def test_a_cancel_scope_is_seen_two_hops_away(run, clock):
    """Who is called in the course of a call has no more time than that."""

    async def relayed():
        async with aio.Entrypoint("relay") as entrypoint:
            relay = entrypoint.manage(RelayServer()).cast(Relay)
            with anyio.fail_after(20):
                scope = await relay.ask(clock.cast(AwaitedClock))
                with cm.timeout(10):
                    ours = await relay.ask(clock.cast(AwaitedClock))
        return scope, ours

    scope, ours = run(relayed)
    assert 10 < scope <= 20
    assert 0 < ours <= 10


def test_a_call_that_is_begun_too_late_is_not_made(run, capability):
    """With the words that a thread is told; nor is one within a scope that is cancelled."""

    async def late():
        proxy = capability.cast(AwaitedWork)
        with pytest.raises(cm.CallTimeout, match=r"not made: the deadline of cm.timeout") as caught, cm.timeout(0):
            await proxy.double(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await proxy.double(1)
        return caught.value.ran, scope.cancelled_caught

    assert run(late) == ("no", True)
    assert not open_door_of(capability).idle


# -------------------------------------------------------------------------------------------------------- channels


def test_a_thousand_calls_at_once(run, fork):
    """On a hundred channels at most; no call is kept waiting so long that it runs out of time."""
    with by_hand.server_process(fork) as (process, capability):
        door = open_door_of(capability)
        ended = []

        async def call(number):
            assert await capability.cast(AwaitedWork).double(number) == 2 * number
            ended.append(number)

        async def thousand():
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            with cm.timeout(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    for number in range(1000):
                        tasks.start_soon(call, number)
                    await anyio.wait_all_tasks_blocked()
                    os.kill(process.pid, signal.SIGCONT)

        run(thousand)
        assert len(door.idle) == 100
        assert sorted(ended) == list(range(1000))
        capability.close()


def test_turns_are_taken_first_come_first_served(run):
    """Who gives up, at a deadline or cancelled, has none; and one that was given to it at that moment goes on."""

    async def take():
        limiter, order = Limiter(1), []
        assert limiter.take_now()
        assert not limiter.take_now()
        assert not await limiter.take(NOW + 1)

        async def one(name):
            assert await limiter.take(FOREVER)
            try:
                await anyio.lowlevel.checkpoint()
                order.append(name)
            finally:
                limiter.give_back()

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(one, name)
                await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0):
                await limiter.take(FOREVER)
            async with anyio.create_task_group() as cancelled:
                cancelled.start_soon(one, "never")
                await anyio.wait_all_tasks_blocked()
                cancelled.cancel_scope.cancel()
            limiter.give_back()
        async with anyio.create_task_group() as tasks:
            assert limiter.take_now()
            tasks.start_soon(one, "never")
            await anyio.wait_all_tasks_blocked()
            limiter.give_back()
            tasks.cancel_scope.cancel()
        order.append(limiter.take_now())
        return order

    assert run(take) == ["a", "b", "c", True]


def test_a_call_that_has_no_turn_in_time(run):
    """Says what it waited for, and leaves its place to others."""
    with by_hand.Impostor() as impostor:

        async def calls():
            proxy = impostor.capability.cast(AwaitedWork)
            async with anyio.create_task_group() as tasks:
                for _ in range(CALLS_MAX):
                    tasks.start_soon(proxy.double, 1)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(cm.CallTimeout, match="not made: 100 others") as caught, cm.timeout(0.2):
                    await proxy.double(1)
                tasks.cancel_scope.cancel()
            with pytest.raises(cm.CallTimeout, match="no answer"), cm.timeout(0.2):
                await proxy.double(1)
            return caught.value.ran

        assert run(calls) == "no"


def test_two_tasks_at_a_full_door(run):
    """They wait for the server without showing the event loop the door: one is cancelled, the other gets in."""
    with by_hand.Impostor() as impostor:
        number = open_door_of(impostor.capability).number
        os.set_blocking(number, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                by_hand.at_door(impostor.capability, b"x")
        results = []

        async def double():
            results.append(await impostor.capability.cast(AwaitedWork).double(4))

        async def both():
            async with anyio.create_task_group() as tasks:
                async with anyio.create_task_group() as cancelled:
                    cancelled.start_soon(double)
                    tasks.start_soon(double)
                    await anyio.wait_all_tasks_blocked()
                    assert number not in registered()
                    cancelled.cancel_scope.cancel()
                await in_thread(by_hand.answer_first_knock, impostor)

        run(both)
        assert results == [8]


@pytest.mark.parametrize("flood", ["late answers", "GO"])
def test_a_server_that_floods_keeps_no_loop_to_itself(run, flood):
    """Others run, and the deadline holds, however much there is always to be received."""
    with by_hand.Impostor() as impostor, open(os.devnull, "rb") as null:

        def answer_and_flood(over):
            with impostor.accept() as channel:
                channel.recv(1000)
                channel.send(by_hand.reply(1, b"\x02"))
                channel.recv(1000)
                # What is closed takes longer than to be sent: there is always one more.
                late = by_hand.reply(1, entries=[(0, bytes(16))], descriptors=253), [null.fileno()] * 253
                record, numbers = late if flood == "late answers" else (wire.pack_go(2), [])
                channel.setblocking(False)
                while not over.is_set():
                    try:
                        by_hand.send(channel, record, numbers)
                    except (BrokenPipeError, ConnectionResetError):
                        break
                    except OSError as error:
                        # Its queue is full; or as much of an ordinary user's is in flight as may be.
                        assert error.errno in (errno.EAGAIN, errno.ETOOMANYREFS)
                        over.wait(0.001)

        async def calls():
            proxy, over, turns = impostor.capability.cast(AwaitedWork), threading.Event(), 0
            server = by_hand.Concurrent(answer_and_flood, over)
            assert await proxy.double(1) == 2

            async def late():
                with pytest.raises(cm.CallTimeout), cm.timeout(0.3):
                    await proxy.double(1)
                over.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(late)
                while not over.is_set():
                    await anyio.lowlevel.checkpoint()
                    turns += 1
            await in_thread(server.outcome)
            return turns

        assert run(calls) > 5
        open_door_of(impostor.capability).idle.clear()


def test_one_channel_in_every_colour(capability):
    """What is idle is anybody's: an event loop of each kind, and a thread, one after the other."""
    door = open_door_of(capability)

    async def double():
        return await capability.cast(AwaitedWork).double(4)

    channels = []
    for loop in (*LOOPS, *LOOPS):
        assert run_in(loop, double) == 8
        channels += door.idle
        assert capability.cast(by_hand.Work).double(4) == 8
        channels += door.idle
    assert len(channels) == 4 * len(LOOPS)
    assert len({id(channel) for channel in channels}) == 1


def test_no_loop_polls_a_number_that_was_closed(capability):
    """However a call ends, in any loop."""

    async def each_way(proxy, loop):
        await proxy.double(1)
        (channel,) = open_door_of(capability).idle
        number = channel.near.number
        with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(proxy.block, began, going)
                assert await in_thread(started.read, 1) == b"."
                while number not in registered():
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            # Of the loops that tell later, below.
            assert loop != "asyncio" or number not in registered()
            await in_thread(reaper.wait, PATIENCE)
            assert number not in registered()
            go.close()
        assert await proxy.double(1) == 2

    for loop in LOOPS:
        run_in(loop, each_way, capability.cast(AwaitedWork), loop)
