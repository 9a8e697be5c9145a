"""Full descriptor tables, of the server and of the client: the call in hand says so, and the next works when it can."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand
import patience
from capmarshal._capabilities.capability import open_door_of
from capmarshal._protocol.faults import Code
from capmarshal._server import turns
from served import send_away

PATIENCE = hand.PATIENCE


@pytest.fixture
def server(fork):
    with hand.bulk_process(fork) as (child, proxy), cm.timeout(PATIENCE):
        yield child, proxy
        proxy.soft_limit(-1)


@pytest.fixture
def proxy(server):
    return server[1]


@pytest.fixture
def one():
    with by_hand.pipe() as (reader, _writer), cm.Descriptor.dup_of(reader) as made:
        yield made


def cpu_of(pid):
    """Seconds, of all its threads (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_and_settled(proxy):
    """How many descriptors the server has open, once what it closes elsewhere is closed."""
    return proxy.state().open


@pytest.mark.parametrize("count", [10, 253, 1000])
def test_a_call_that_does_not_fit_into_the_servers_table_is_answered(proxy, one, count):
    """In one record or in parts: counts in the error, nothing stays open, and the next call works."""
    before = open_and_settled(proxy)
    proxy.soft_limit(5)
    with pytest.raises(
        cm.DescriptorsLost, match=rf"\d+ of {count} descriptors were lost at the server.*table"
    ) as caught:
        proxy.check(b"x" * 300_000, [one] * count)
    assert caught.value.errno == errno.EMFILE
    assert proxy.size(b"abc") == 3
    assert len(proxy.check(b"", [one])[1]) == 1
    proxy.soft_limit(-1)
    assert len(proxy.check(b"x" * 300_000, [one] * count)[1]) == count
    assert open_and_settled(proxy) == before


def test_descriptors_lost_in_the_middle_of_a_long_call_are_counted(proxy, one):
    """The table fills up with the third part: the first two are closed too."""
    before = open_and_settled(proxy)
    proxy.soft_limit(600)
    with pytest.raises(cm.DescriptorsLost, match=r"400 of 1000 descriptors were lost"):
        proxy.check(b"", [one] * 1000)
    assert len(proxy.check(b"", [one] * 500)[1]) == 500
    proxy.soft_limit(-1)
    assert open_and_settled(proxy) == before


def test_a_result_that_finds_no_room_at_the_server(proxy):
    """Made by the method, its error is the method's; duplicated for what the server keeps, it is the server's."""
    proxy.soft_limit(5)
    with pytest.raises(cm.RemoteError, match="Too many open files"):
        proxy.make(0, 10)
    proxy.soft_limit(-1)
    proxy.soft_limit(15)
    with pytest.raises(cm.TableFull, match=r"at the server.*RLIMIT_NOFILE"):
        proxy.make_kept(10)
    assert proxy.close_kept() == 10
    for each in proxy.make_kept(3):
        each.close()
    proxy.close_kept()


@pytest.mark.parametrize("count", [10, 253, 1000])
def test_a_result_that_does_not_fit_into_the_clients_table_is_an_error(proxy, count):
    """In one record or in parts: counts in the error, what came is closed, and the next call works."""
    with (
        hand.little_room(5),
        pytest.raises(cm.DescriptorsLost, match=rf"of {count} descriptors of the result") as caught,
    ):
        proxy.same(count, None)
    assert caught.value.errno == errno.EMFILE
    assert proxy.size(b"abc") == 3
    with hand.little_room(5):
        assert proxy.size(b"abcd") == 4
    made = proxy.same(count, None)
    assert len(made) == count
    for each in made:
        each.close()


@pytest.mark.parametrize("spare", [0, 1])
def test_a_client_without_room_for_a_channel_says_so(proxy, spare):
    """Nothing was sent, nothing is left behind, and it works when there is room."""
    capability = cm.capability(proxy)
    open_door_of(capability).idle.clear()
    with hand.little_room(spare), pytest.raises(cm.TableFull, match=r"making a channel.*RLIMIT_NOFILE"):
        proxy.size(b"abc")
    assert proxy.size(b"abc") == 3


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
def test_an_entrypoint_that_finds_no_room_leaves_nothing(spare):
    """It takes four descriptors, or an error."""
    with hand.little_room(spare), pytest.raises(cm.TableFull, match="RLIMIT_NOFILE"):
        cm.Entrypoint("none")


def test_spawn_and_dataspace_without_room_leave_nothing(proxy):
    """Nothing is started and nothing is made."""
    with hand.little_room(0):
        with pytest.raises((cm.TableFull, OSError)):
            cm.spawn(["true"], parent=cm.capability(proxy))
        with pytest.raises(cm.TableFull):
            cm.Dataspace.create(1)


def in_use(capability):
    """A channel by hand that is known to be in use: its answer waits for a GO."""
    near = by_hand.knock(capability)
    near.send(hand.call(capability, b"same", [300, None], id=2))
    assert by_hand.answer(near)[1] == []
    hand.close_all(by_hand.answer(near)[1])
    return near


def refused_until_its_deadline(proxy):
    """Whether a call has found no channel; False where its deadline came between a knock and the refusal of that."""
    with cm.timeout(0.5), pytest.raises(cm.CallTimeout) as caught:
        proxy.run()
    return caught.value.ran == "no" and "no new channel in 0." in str(caught.value)


def test_a_full_server_answers_open_channels_and_drops_knocks_without_spinning(fork):
    """Who has a channel is served; who knocks comes again until its deadline, and is taken when there is room."""
    limits = cm.Limits(channels=9, process_share=1 / 3)
    with hand.bulk_process(fork, {"limits": limits}) as (child, proxy), cm.timeout(PATIENCE):
        capability = cm.capability(proxy)
        with contextlib.ExitStack() as stack:
            first, *_ = [stack.enter_context(in_use(capability)) for _ in range(3)]
            used, began = cpu_of(child.pid), time.monotonic()
            patience.until(lambda: refused_until_its_deadline(proxy))
            assert cpu_of(child.pid) - used < (time.monotonic() - began) / 5
            # Open channels go on being served: this abandons the answer that waits.
            assert hand.lives(first, capability)
            first.close()
            assert proxy.run() == 1


class Same(by_hand.Worker):
    """Returns many descriptors that cost this process one."""

    def pipes(self, count):
        reader, writer = os.pipe()
        os.close(writer)
        return [cm.Descriptor(reader)] * count


def test_a_full_table_does_not_have_the_server_spin_over_who_gives_an_answer_up(fork, lingering, one, monkeypatch):
    """A call that comes where a GO is due is read at once, whatever is being closed, and answered: it has lost some."""
    # As long as the test likes.
    monkeypatch.setattr(turns, "_SCARCE_PATIENCE", int(4 * PATIENCE * 1e9))
    with by_hand.server_process(fork, Same, table=160) as (child, capability), contextlib.ExitStack() as stack:
        # After the server was forked, which would have a copy of it.
        number, slow = lingering(4 * int(PATIENCE))
        reading, near = (stack.enter_context(by_hand.knock(capability)) for _ in range(2))
        reading.send(by_hand.call(capability, b"pipes", b"\x91\xcd\x01\x2c"))
        hand.close_all(hand.long_answer(reading, say_go=False)[1])
        with by_hand.busy(capability):
            send_away(near, capability, number, count=100)
        table = [(slot, hand.NO_BADGE) for slot in range(60)]
        record = by_hand.call(capability, b"count", b"\x91\xdc\x00\x3c" + bytes(range(60)), table, 60, id=2)
        used, began = cpu_of(child.pid), time.monotonic()
        by_hand.send(reading, record, [one.fileno()] * 60)
        select.select([], [], [], 0.3)
        assert cpu_of(child.pid) - used < (time.monotonic() - began) / 5
        assert by_hand.failure(reading) is Code.LOST
        while slow.recv(1 << 20):
            pass
        assert bytes(by_hand.answer(near)[0].payload) == b"\x02"


def test_a_partial_call_of_the_whole_table_is_given_up_for_who_knocks(fork, one):
    """Who stalls with all of the server's table in an unfinished call does not keep others out."""
    with hand.bulk_process(fork, table=300) as (_, proxy), cm.timeout(PATIENCE):
        capability = cm.capability(proxy)
        open_door_of(capability).idle.clear()
        with by_hand.knock(capability) as hog:
            hog.send(hand.begin(1000, 1000))
            for _ in range(2):
                by_hand.send(hog, hand.part(b"x", 253), [one.fileno()] * 253)
                hand.await_go(hog)
            with cm.timeout(5):
                assert len(proxy.check(b"", [one])[1]) == 1


def test_lost_knocks_cost_the_server_nothing(fork, one):
    """A thousand that find no room leave the table as it was."""
    with hand.bulk_process(fork) as (_, proxy), cm.timeout(PATIENCE):
        capability = cm.capability(proxy)
        before = proxy.state().open
        proxy.soft_limit(0)
        for _ in range(1000):
            by_hand.knock(capability).close()
        proxy.soft_limit(-1)
        # Or less by one: the last knock may have found no room for the pidfd that tells who it was.
        assert proxy.state().open in (before, before - 1)
