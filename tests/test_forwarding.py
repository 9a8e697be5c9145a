"""Calls that go through a process in between, which knows no interface: all arrives as if there were none.

Client, forwarder and server are three processes.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
from pathlib import Path

import anyio
import pytest

import by_hand
import capmarshal as cm
import forwarding
import loops
from capmarshal import aio
from forwarding import AsyncDesk, Desk, Page, PageServer, Wrong, row
from patience import BEGINS, PATIENCE, until

FORWARDERS = [("pass", "blocking"), ("pass", "asyncio"), ("pass", "trio"), ("membrane", "asyncio")]
each_forwarder = pytest.mark.parametrize("forwarder", FORWARDERS, ids="-".join)


def _open_in(*processes):
    """How many descriptors each has open, of which none is for what only garbage here refers to."""
    gc.collect()
    return [len(list(Path(f"/proc/{process.pid}/fd").iterdir())) for process in processes]


def _no_more_than(before, *processes):
    """Waits until each has no more open than before, when what it closes now may have been there still."""
    until(lambda: all(now <= then for now, then in zip(_open_in(*processes), before, strict=True)))


def _travels_there_and_back(desk, forwarder):
    """Data, short and long; errors; descriptors; capabilities; streams; signals; what there is to call."""
    assert desk.echo(b"short") == b"short"
    long = os.urandom(3_000_000)
    assert desk.echo(long) == long
    with pytest.raises(Wrong) as wrong:
        desk.fail("word", 3)
    assert (wrong.value.args, wrong.value.place) == (("word", 3), 3)
    with pytest.raises(cm.RemoteError) as remote:
        desk.break_()
    assert (remote.value.type, remote.value.message) == ("PermissionError", "not this one")
    with open(os.devnull, "rb") as null:
        files = [cm.Descriptor.dup_of(null.fileno()) for _ in range(300)]
        came = desk.copy(files)
        assert [os.fstat(file.fileno()).st_ino for file in came] == [os.fstat(null.fileno()).st_ino] * 300
        for file in files + came:
            file.close()
    with cm.Dataspace.from_buffer(memoryview(b"12345678").cast("H")) as data, desk.array(data) as again:
        assert again.__array_interface__["typestr"] == data.__array_interface__["typestr"] == "<u2"
        assert bytes(again.view()) == b"12345678"
    with cm.BufferPool(1, 5) as pool:
        # Given back by both, or the second would not be had.
        for _ in range(2):
            with pool.take(timeout=PATIENCE) as buffer:
                buffer.view()[:] = b"words"
                assert desk.read(buffer) == b"words"
    page = desk.page("theirs")
    assert (page.title(), desk.title_of(page)) == ("theirs", "theirs")
    with cm.Entrypoint("near") as near:
        own = PageServer("mine")
        mine = near.manage(own).cast(Page)
        assert desk.title_of(mine) == "mine"
        assert cm.capability(desk.same(mine)).local is own
    assert list(desk.lines(3000)) == [str(number) for number in range(3000)]
    assert desk.total(iter(range(3000))) == sum(range(3000))
    with cm.SignalReceiver() as receiver:
        desk.ring(receiver.signal)
        assert receiver.wait(timeout=PATIENCE) == 1
    assert desk.caller()[1] == forwarder.pid
    assert "echo" in [each.name for each in _described(desk)]
    with cm.timeout(5):
        assert 0 < desk.left() <= 5


def _described(desk):
    from capmarshal._describe.asking import description_of

    return description_of(cm.capability(desk)).methods


@each_forwarder
def test_all_that_travels_arrives(forwarder):
    """Whoever forwards, and nothing is left open in any of the three."""
    with row(("desk", "blocking"), forwarder) as (capability, (far, near)):
        desk = capability.cast(Desk, timeout=PATIENCE)
        _travels_there_and_back(desk, near)
        before = _open_in(far, near)
        for _ in range(10):
            _travels_there_and_back(desk, near)
        _no_more_than(before, far, near)


def test_a_row_of_forwarders():
    """Of every kind, one behind the other."""
    with row(("desk", "blocking"), *FORWARDERS) as (capability, (_, first, *_, _)):
        _travels_there_and_back(capability.cast(Desk, timeout=PATIENCE), first)


@each_forwarder
def test_a_stream_is_pulled_and_ends_with_who_has_it(forwarder):
    """No more is made than was asked for, whoever is in between, and the generator ends when it is dropped."""
    with row(("desk", "blocking"), forwarder) as (capability, (far, near)):
        desk = capability.cast(Desk, timeout=PATIENCE)
        assert list(desk.lines(1)) == ["0"]
        before = _open_in(far, near)
        lines, made = desk.lines(1_000_000), desk.made()
        assert [next(lines) for _ in range(10)] == [str(number) for number in range(10)]
        assert desk.made() - made < 100
        lines.close()
        _no_more_than(before, far, near)


def test_what_is_ones_own_comes_home():
    """Through who passes all on as it is, to both ends; and a membrane takes off what it has put on."""
    with row(("desk", "blocking"), ("pass", "blocking")) as (capability, _):
        desk = capability.cast(Desk, timeout=PATIENCE)
        page = desk.page("theirs")
        assert desk.same(page) == page
        assert not desk.is_own(capability)
    with row(("desk", "blocking"), ("membrane", "trio")) as (capability, _):
        assert capability.cast(Desk, timeout=PATIENCE).is_own(capability)


@pytest.mark.parametrize(
    ("forwarder", "loop"), list(zip(FORWARDERS[1:], ("trio", "asyncio", "uvloop"), strict=True)), ids="-".join
)
def test_cancelling_goes_through(forwarder, loop):
    """As does a deadline of the caller's: the method far away is cancelled."""

    async def cancel(desk, begun, ended):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.hold, begun.signal, ended.signal)
            await aio.wait_signal(begun, timeout=PATIENCE)
            tasks.cancel_scope.cancel()
        await aio.wait_signal(ended, timeout=PATIENCE)
        with pytest.raises(TimeoutError), anyio.fail_after(BEGINS):
            await desk.hold(begun.signal, ended.signal)
        await aio.wait_signal(ended, timeout=PATIENCE)
        with pytest.raises(cm.CallTimeout), cm.timeout(BEGINS):
            await desk.hold(begun.signal, ended.signal)
        await aio.wait_signal(ended, timeout=PATIENCE)
        assert await desk.echo(b"on it goes") == b"on it goes"

    with (
        row(("desk", "asyncio"), forwarder) as (capability, _),
        cm.SignalReceiver() as begun,
        cm.SignalReceiver() as ended,
    ):
        loops.run(loop, cancel, capability.cast(AsyncDesk), begun, ended)


@pytest.mark.parametrize("forwarder", FORWARDERS[1:], ids="-".join)
def test_all_in_loops(forwarder):
    """Server, forwarder and client: streams both ways, and a method far away that calls back."""

    class Mine(forwarding.AsyncPage):
        async def title(self):
            return "mine"

    async def call(capability):
        desk = capability.cast(AsyncDesk)
        assert [line async for line in desk.lines(300)] == [str(number) for number in range(300)]

        async def numbers():
            for number in range(300):
                yield number

        assert await desk.total(numbers()) == sum(range(300))
        async with aio.Entrypoint("near") as near:
            assert await desk.title_of(near.manage(Mine()).cast(forwarding.AsyncPage)) == "mine"

    with row(("desk", "trio"), forwarder) as (capability, _):
        loops.run("asyncio", call, capability)


@pytest.mark.parametrize("forwarder", FORWARDERS[1:], ids="-".join)
def test_a_forwarder_that_dies_in_a_call(forwarder):
    """Its caller hears of it at once, and so does the method that it has called."""

    async def kill(desk, process, begun, ended):
        async with anyio.create_task_group() as tasks:

            @tasks.start_soon
            async def holding():
                with pytest.raises(cm.Disconnected) as gone:
                    await desk.hold(begun.signal, ended.signal)
                assert gone.value.ran == "maybe"

            await aio.wait_signal(begun, timeout=PATIENCE)
            os.kill(process.pid, signal.SIGKILL)
        await aio.wait_signal(ended, timeout=PATIENCE)

    with (
        row(("desk", "asyncio"), forwarder) as (capability, (_, process)),
        cm.SignalReceiver() as begun,
        cm.SignalReceiver() as ended,
    ):
        loops.run("trio", kill, capability.cast(AsyncDesk), process, begun, ended)


@each_forwarder
def test_a_server_that_dies_behind_a_forwarder(forwarder):
    """Whether the call has run is said as if nobody were in between, and the forwarder lives."""
    with row(("desk", "blocking"), forwarder) as (capability, (far, _)):
        desk = capability.cast(Desk, timeout=PATIENCE)
        with pytest.raises(cm.Disconnected) as gone:
            desk.die()
        assert gone.value.ran == "maybe"
        far.wait()
        with pytest.raises(cm.Disconnected) as gone:
            desk.echo(b"")
        assert gone.value.ran == "no"
        assert "Desk.echo, entrypoint '" in str(gone.value)
        assert not capability.gone


@pytest.mark.parametrize("victim", [0, 1], ids=["server", "forwarder"])
@pytest.mark.parametrize("forwarder", [FORWARDERS[0], FORWARDERS[-1]], ids="-".join)
def test_no_call_that_has_run_is_said_not_to(forwarder, victim):
    """Whoever is killed while many are under way: what has run is written down by the method itself."""
    with row(("desk", "blocking"), forwarder) as (capability, processes), by_hand.temporary() as marks:
        desk = capability.cast(Desk, timeout=PATIENCE)
        numbers, outcomes = itertools.count(), {}

        def call():
            for number in numbers:
                outcomes[number] = "under way"
                try:
                    desk.mark(number, marks)
                    outcomes[number] = "done"
                except cm.Disconnected as gone:
                    outcomes[number] = gone.ran
                    return

        callers = [by_hand.Concurrent(call) for _ in range(6)]
        until(lambda: len(outcomes) > 200)
        processes[victim].kill()
        for caller in callers:
            caller.outcome()
        written = os.pread(marks.fileno(), os.fstat(marks.fileno()).st_size, 0)
        ran = {int.from_bytes(written[at : at + 4], "big") for at in range(0, len(written), 4)}
        assert len(ran) * 4 == len(written)
        assert ran.isdisjoint(number for number, outcome in outcomes.items() if outcome == "no")
        assert ran.issuperset(number for number, outcome in outcomes.items() if outcome == "done")
        assert set(outcomes.values()) <= {"done", "maybe", "no"}
