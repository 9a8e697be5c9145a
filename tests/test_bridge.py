"""Capabilities of another machine, called as those of this one: through two bridges in processes of their own."""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import bridge_hosts
import capmarshal as cm
import nats_servers
from capmarshal import aio
from forwarding import Desk, DeskServer, Page, PageServer, Wrong
from patience import PATIENCE


@pytest.fixture
def near_and_far(tmp_path):
    with nats_servers.nodes(tmp_path) as nodes, bridge_hosts.hosts(nodes, "near", "far") as both:
        yield both


@pytest.fixture
def desk(near_and_far):
    """A desk that is served beyond two bridges."""
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint:
        yield near.host.connect(far.host.export(entrypoint.manage(DeskServer()))).cast(Desk)


def test_calls_results_and_errors(desk):
    assert desk.echo(b"there and back") == b"there and back"
    with pytest.raises(Wrong, match="word") as caught:
        desk.fail("word", 3)
    assert caught.value.place == 3
    with pytest.raises(cm.RemoteError, match="not this one"):
        desk.break_()
    with pytest.raises(cm.UnknownMethod):
        cm.capability(desk).cast(Page).title()


def test_long_arguments_and_results(desk):
    long = os.urandom(10 << 20)
    assert desk.echo(long) == long


class Long(cm.Interface):
    @cm.method
    async def poll(self, number: int) -> int: ...


class LongServer(Long):
    """Answers those of no number less than nothing alone, and counts the others."""

    def __init__(self):
        self.waiting, self.more = 0, asyncio.Event()

    async def poll(self, number):
        if number < 0:
            self.waiting += 1
            self.more.set()
            await asyncio.Event().wait()
        return number


POLLING = """
import asyncio
import capmarshal as cm

class Long(cm.Interface):
    @cm.method
    async def poll(self, number: int) -> int: ...

async def main():
    long = cm.parent().cast(Long)
    await asyncio.gather(*(long.poll(-1) for _ in range(100)))

asyncio.run(main())
"""


def test_long_calls_of_one_process_hold_up_none_of_another(near_and_far):
    near, far = near_and_far

    async def program():
        served = LongServer()
        async with aio.Entrypoint("long", concurrency=1000) as entrypoint:
            token = await asyncio.to_thread(far.host.export, entrypoint.manage(served))
            there = await asyncio.to_thread(near.host.connect, token)
            polling = cm.spawn([sys.executable, "-P", "-c", POLLING], parent=there)
            try:
                while served.waiting < 40:
                    served.more.clear()
                    await served.more.wait()
                for number in range(20):
                    assert await there.cast(Long).poll(number) == number
                assert served.waiting == 40
            finally:
                polling.kill()
                await asyncio.to_thread(polling.wait, PATIENCE)

    async def limited():
        async with asyncio.timeout(PATIENCE):
            await program()

    asyncio.run(limited())


def test_deadlines_go_along(desk):
    with cm.timeout(20):
        assert 10 < desk.left() < 20
    with cm.SignalReceiver() as begun, cm.SignalReceiver() as ended, cm.timeout(0.5):
        desk.hold(begun.signal, ended.signal)
        begun.wait(PATIENCE)


def test_capabilities_both_ways(desk):
    page = desk.page("far away")
    assert page.title() == "far away"
    # One's own comes home, on either side.
    assert desk.title_of(page) == "far away"
    assert desk.is_own(cm.capability(desk))
    with cm.Entrypoint("mine") as entrypoint:
        mine = entrypoint.manage(PageServer("near"))
        assert desk.title_of(mine.cast(Page)) == "near"
        assert cm.capability(desk.same(mine.cast(Page))) is mine


@pytest.mark.parametrize("first", ["near", "far"])
def test_each_has_joined_the_other(near_and_far, first):
    """What came by the one link goes home by the other."""
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint, cm.Entrypoint("pages") as pages:
        mine = pages.manage(PageServer("near"))
        served = DeskServer()
        if first == "far":
            there = far.host.connect(near.host.export(mine))
        desk = near.host.connect(far.host.export(entrypoint.manage(served))).cast(Desk)
        if first == "near":
            there = far.host.connect(near.host.export(mine))
        assert there.cast(Page).title() == "near"
        # What serves the desk has it by the one link, and gives it back by the other.
        served.page = lambda _title: there.cast(Page)
        assert cm.capability(desk.page("")) is mine
        seen = []
        served.title_of = lambda page: seen.append(cm.capability(page)) or page.title()
        assert desk.title_of(mine.cast(Page)) == "near"
        assert [each.cast(Page).title() for each in seen] == ["near"]
        del served.page, served.title_of


def test_streams_both_ways(desk):
    assert list(desk.lines(1000)) == [str(number) for number in range(1000)]
    assert desk.total(iter(range(1000))) == 499500
    lines = desk.lines(1_000_000)
    next(lines)
    lines.close()
    assert desk.made() < 100_000


def test_signals(desk):
    with cm.SignalReceiver() as receiver:
        for _ in range(3):
            desk.ring(receiver.signal)
            assert receiver.wait(PATIENCE) >= 1


def test_dataspaces_are_copied(desk):
    with cm.Dataspace.from_buffer(memoryview(bytes(range(250)) * 20_000).cast("B", (5000, 1000))) as data:
        with desk.array(data) as came:
            assert (came.shape, came.sealed, bytes(came.view())) == ((5000, 1000), True, bytes(data.view()))


def test_dataspaces_of_bytes_are_copied_too(desk):
    """Nothing says on the way that they are none but descriptors; and what has not all of its seals is refused."""
    with cm.Dataspace.from_buffer(bytes(range(250)) * 20_000) as data, desk.array(data) as came:
        assert (came.shape, came.sealed, bytes(came.view())) == ((5_000_000,), True, bytes(data.view()))
    with cm.Dataspace.create(10) as unsealed, cm.Descriptor(os.dup(unsealed.fileno())) as given:
        with pytest.raises(cm.ArgumentError, match=r"another machine.*descriptor"):
            desk.copy([given])


def test_descriptors_are_refused_before_anything_is_sent(desk):
    with open("/dev/null", "rb") as file, cm.Descriptor.dup_of(file) as given:
        with pytest.raises(cm.ArgumentError, match=r"another machine.*descriptor"):
            desk.copy([given])


def test_a_revoked_token(near_and_far):
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint:
        token = far.host.export(entrypoint.manage(DeskServer()))
        desk = near.host.connect(token).cast(Desk)
        page = desk.page("of it")
        far.host.revoke(token, "was stolen")
        for each in (desk, page):
            cm.wait_gone(cm.capability(each), PATIENCE)
        with pytest.raises(cm.Revoked, match="was stolen"):
            desk.made()
        with pytest.raises(cm.Revoked, match="was stolen"):
            page.title()
        with pytest.raises(cm.Disconnected, match="revoked"):
            near.host.connect(token)


def test_a_revoked_grant_and_a_server_that_goes(near_and_far):
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint:
        granted = entrypoint.grant(DeskServer())
        desk = near.host.connect(far.host.export(granted)).cast(Desk)
        entrypoint.revoke(granted, "enough")
        with pytest.raises(cm.Revoked, match="enough"):
            desk.made()
        cm.wait_gone(cm.capability(desk), PATIENCE)
        other = near.host.connect(far.host.export(entrypoint.manage(DeskServer()))).cast(Desk)
        assert other.made() == 0
    cm.wait_gone(cm.capability(other), PATIENCE)
    with pytest.raises(cm.Disconnected) as caught:
        other.made()
    assert caught.value.ran == "no"


def test_nobody_can_reach_it_any_more(near_and_far):
    near, far = near_and_far
    gone = threading.Event()
    with cm.Entrypoint("desk") as entrypoint:
        served = DeskServer()
        token = far.host.export(entrypoint.grant(served, unreachable=lambda _served: gone.set()))
        near.host.connect(token)
        far.host.revoke(token, "")
        assert gone.wait(PATIENCE)


def test_a_path_of_another_machine(near_and_far, tmp_path):
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint:
        token = far.host.export(entrypoint.manage(DeskServer()))
        near.host.listen(str(tmp_path / "desk.sock"), token)
        assert cm.connect(tmp_path / "desk.sock").cast(Desk).echo(b"by a path") == b"by a path"


def test_three_parties(tmp_path):
    """What one has of another, a third one calls."""
    with nats_servers.nodes(tmp_path) as nodes, bridge_hosts.hosts(nodes, "one", "two", "three") as (one, two, three):
        with cm.Entrypoint("one") as first, cm.Entrypoint("two") as second:
            page = three.host.connect(one.host.export(first.manage(PageServer("of one")))).cast(Page)
            desk = three.host.connect(two.host.export(second.manage(DeskServer()))).cast(Desk)
            assert desk.title_of(page) == "of one"
            assert desk.same(page).title() == "of one"


@pytest.mark.parametrize("which", ["near", "far"])
def test_a_bridge_that_is_killed(near_and_far, which):
    """Who waits for a call is told that it may have run, and who calls later that it has not."""
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint, cm.SignalReceiver() as begun, cm.SignalReceiver() as ended:
        served = DeskServer()
        served.hold = lambda begun, _ended: (begun.send(), ended.wait(PATIENCE))
        desk = near.host.connect(far.host.export(entrypoint.manage(served))).cast(Desk)
        answers = []

        def call():
            try:
                desk.hold(begun.signal, ended.signal)
            except cm.Disconnected as error:
                answers.append(error.ran)

        calling = threading.Thread(target=call)
        calling.start()
        begun.wait(PATIENCE)
        (near if which == "near" else far).kill()
        calling.join(PATIENCE)
        ended.signal.send()
        assert answers == ["maybe"]
        cm.wait_gone(cm.capability(desk), PATIENCE)
        with pytest.raises(cm.Disconnected) as caught:
            desk.made()
        assert caught.value.ran == "no"


def test_many_calls_at_a_time_with_long_results(near_and_far):
    """More of them than one link may have here at a time: the rest wait."""
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint, ThreadPoolExecutor(24) as pool:
        desk = near.host.connect(far.host.export(entrypoint.manage(DeskServer()))).cast(Desk)
        sizes = pool.map(lambda number: len(desk.echo(bytes(number << 20))), range(24))
        assert list(sizes) == [number << 20 for number in range(24)]
