"""What one client costs the others: turns, channels, unread answers, long calls, and what outlives its sender.

The server is an entrypoint of the test's own, so that it can be looked into; its clients are forked processes that
speak by hand.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time

import pytest

import by_hand
import capmarshal as cm
import matrix
import parts_by_hand
from capmarshal._capabilities.capability import open_door_of
from capmarshal._protocol.faults import Code
from capmarshal._server.ledger import Resource
from patience import PATIENCE
from served import Notes, channels, note, serving

pytestmark = pytest.mark.usefixtures("quiet_log")


# Turns -----------------------------------------------------------------------------------------------------------


@matrix.begins_a_round_later
def test_turns_are_dealt_by_peer_not_by_channel(hostile):
    """One process has calls waiting on 30 channels; another's call waits for one of those, not for 30."""
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as honest:
        assert parts_by_hand.lives(honest, served.capability)
        opened = []
        many = hostile(
            lambda: opened.extend(channels(served.capability, 30)),
            lambda: [near.send(note(served.capability, "many")) for near in opened],
        )
        with by_hand.busy(served.capability):
            many.act()
            honest.send(note(served.capability, "one"))
        by_hand.answer(honest)
        assert served.book.calls_by.index("one") <= 1


@matrix.begins_a_round_later
def test_a_call_of_each_peer_in_turn(hostile):
    """Two processes with ten waiting calls each: neither is two calls ahead of the other."""
    with serving() as served:
        clients = []
        for who in ("a", "b"):
            opened = []
            clients.append(
                hostile(
                    lambda opened=opened: opened.extend(channels(served.capability, 10)),
                    lambda opened=opened, who=who: [near.send(note(served.capability, who)) for near in opened],
                    lambda opened=opened: [by_hand.answer(near) for near in opened],
                )
            )
        with by_hand.busy(served.capability):
            for client in clients:
                client.act()
        for client in clients:
            client.act()
        made = "".join(served.book.calls_by)
        assert sorted(made) == sorted("ab" * 10)
        assert "aaa" not in made[:-2]
        assert "bbb" not in made[:-2]


@matrix.begins_a_round_later
def test_a_flood_of_knocks_leaves_turns_for_calls(hostile):
    """200 knocks wait at the door before the honest call is sent: it runs before a tenth of them are admitted."""
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as honest:
        assert parts_by_hand.lives(honest, served.capability)
        flood = hostile(lambda: None, lambda: [by_hand.knock(served.capability) for _ in range(200)])
        with by_hand.busy(served.capability):
            before = len(served.channels)
            flood.act()
            served.book.look = lambda: len(served.channels)
            honest.send(note(served.capability, "one"))
        by_hand.answer(honest)
        assert served.book.seen[0] - before < 20


@matrix.one_call_a_channel
def test_calls_that_take_long_are_not_taken_in_a_row(hostile):
    """Whatever CPU a client claims to send from: while its calls are long, others come in between."""
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as honest:
        assert parts_by_hand.lives(honest, served.capability)
        greedy = []

        def flood():
            for number in range(20):
                payload = b"\x91\xa4many"
                greedy[0].send(by_hand.call(served.capability, b"note", payload, id=number + 2, cpu=1000))

        client = hostile(lambda: greedy.extend(channels(served.capability, 1)), flood)

        def look():
            if len(served.book.calls_by) == 1:
                honest.send(note(served.capability, "one"))
            until = time.monotonic() + 0.002
            while time.monotonic() < until:
                pass

        served.book.look = look
        client.act()
        by_hand.answer(honest)
        assert served.book.calls_by.index("one") <= 3


# What a peer's end takes with it ---------------------------------------------------------------------------------


def test_what_a_dead_client_has_queued_does_not_run(hostile, until):
    """Its process has ended when the server comes to its calls."""
    with serving() as served:
        opened = []
        client = hostile(
            lambda: opened.extend(channels(served.capability, 10)),
            lambda: [near.send(note(served.capability, "dead")) for near in opened],
        )
        with by_hand.busy(served.capability):
            client.act()
            client.child.kill()
        until(lambda: len(served.channels) <= 1)
        assert served.book.calls_by == []


@pytest.mark.parametrize("how", ["both ends of a pair", "a copy in its own queue"])
def test_a_channel_does_not_outlive_its_process(hostile, until, how):
    """Whoever holds copies of its sockets, the server itself included."""

    def act():
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if how == "both ends of a pair":
            by_hand.at_door(served.capability, by_hand._wire.KNOCK_RECORD, [near.fileno()])
        else:
            by_hand.send(far, b"x", [near.fileno()])
        by_hand.at_door(served.capability, by_hand._wire.KNOCK_RECORD, [far.fileno()])
        return near, far

    with serving() as served:
        client = hostile(act)
        until(lambda: len(served.channels) == (2 if how == "both ends of a pair" else 1))
        client.child.kill()
        until(lambda: len(served.channels) == 0)


def test_a_door_is_no_channel(hostile, until):
    """A knock with the door's own client end would keep a channel that nobody can speak on."""
    with serving() as served:
        door = open_door_of(served.capability).number
        hostile(lambda: by_hand.at_door(served.capability, by_hand._wire.KNOCK_RECORD, [door]))
        with cm.timeout(PATIENCE):
            assert served.capability.cast(by_hand.Work).double(1) == 2
        # The call's own.
        assert len(served.channels) == 1


# Shares ----------------------------------------------------------------------------------------------------------


def test_begin_and_nothing_more_locks_nobody_out(hostile):
    """Four processes announce long calls on as many channels as they get: another one is let in, and served."""
    with serving(limits=cm.Limits(channels=40)) as served:

        def act():
            made = []
            for _ in range(60):
                near = by_hand.knock(served.capability)
                with contextlib.suppress(OSError):
                    near.send(parts_by_hand.begin(1 << 20, 0))
                made.append(near)
            return made

        for _ in range(4):
            hostile(act)
        with cm.timeout(PATIENCE):
            proxy = served.capability.cast(Notes)
            assert proxy.double(2) == 4
            # Its own long call takes part of what may be on its way from them.
            assert proxy.size(bytes(8 << 20)) == 8 << 20


def test_unread_answers_are_bounded_over_all_peers(hostile, until):
    """However many processes of a user take answers and do not read them."""
    most = 8 << 20
    with serving(max_bytes=2 << 20, limits=cm.Limits(unread_bytes=most)) as served:

        def act():
            made = []
            for _ in range(8):
                near = by_hand.knock(served.capability)
                # A process that has too much unread is held back, and its further knocks are refused.
                with contextlib.suppress(BrokenPipeError):
                    near.send(by_hand.call(served.capability, b"make", b"\x91\xce" + (1 << 20).to_bytes(4, "big")))
                made.append(near)
            return made

        for _ in range(12):
            hostile(act)
        with cm.timeout(PATIENCE):
            assert len(served.capability.cast(Notes).make(1 << 20)) == 1 << 20
        # Who reads is not dropped: there may be a little more for a moment.
        until(lambda: served.total(Resource.UNREAD_BYTES) <= most)


def test_unread_descriptors_of_one_do_not_fail_the_calls_of_others(fork):
    """A client that receives none of the descriptors that it is sent has a bounded number of them in flight.

    They are in flight on the account of the server, which runs as an ordinary user with a table of 512.
    """
    with by_hand.server_process(fork, ordinary=True, table=512) as (_, capability):
        nears = []
        for number in range(40):
            near = by_hand.knock(capability)
            nears.append(near)
            # Its knock may be refused by now, for all that it has unread.
            with contextlib.suppress(BrokenPipeError):
                near.send(by_hand.call(capability, b"pipes", b"\x91\x14", id=number + 1))
        with cm.timeout(PATIENCE):

            def another():
                # Ten at a time, from another process.
                with cm.timeout(5):
                    files = capability.cast(by_hand.Work).pipes(10)
                for file in files:
                    file.close()
                return len(files)

            assert fork(another).result() == 10
        for near in nears:
            near.close()


def test_a_process_that_is_dropped_keeps_its_unread_descriptors_on_its_account(hostile, until):
    """What lies in its queue is in flight until it is received, channel or not."""
    with serving() as served:

        def act():
            near = by_hand.knock(served.capability)
            near.send(by_hand.call(served.capability, b"pipes", b"\x91\x0a"))
            assert select.select([near], [], [], PATIENCE)[0]
            near.send(b"nonsense")
            return near

        client = hostile(act, lambda: None)
        until(lambda: len(served.channels) == 0)
        assert served.channels.unread.count == 10
        assert served.channels.unread.any_ended
        client.child.kill()
        until(lambda: served.channels.unread.count == 0)
        assert not served.channels.unread.any_ended


# What the maxima are for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["bytes", "descriptors"])
def test_an_announcement_is_no_way_around_the_maxima(what):
    """A call in one record that follows the BEGIN of another is looked at like any."""
    with (
        serving(max_bytes=1000, max_descriptors=4) as served,
        contextlib.closing(by_hand.knock(served.capability)) as near,
    ):
        near.send(parts_by_hand.begin(100, 1))
        reader, writer = os.pipe()
        with cm.Descriptor(reader) as one, cm.Descriptor(writer):
            if what == "bytes":
                record, numbers = (
                    by_hand.call(served.capability, b"size", b"\x91\xc5\x27\x10" + bytes(10_000), id=2),
                    [],
                )
            else:
                table = [(slot, bytes(16)) for slot in range(20)]
                payload = b"\x91\xdc\x00\x14" + bytes(range(20))
                record = by_hand.call(served.capability, b"count", payload, table, 20, id=2)
                numbers = [one.fileno()] * 20
            by_hand.send(near, record, numbers)
            assert by_hand.failure(near) is Code.TOO_BIG


def test_a_call_that_stands_still_gives_way_to_one_that_waits(hostile):
    """Whoever announces the largest calls and sends nothing more does not keep the largest call of another out."""
    with serving(max_bytes=4 << 20) as served:

        def act():
            near = by_hand.knock(served.capability)
            near.send(parts_by_hand.begin(4 << 20, 0))
            return near

        for _ in range(4):
            hostile(act)
        with cm.timeout(PATIENCE):
            assert served.capability.cast(Notes).size(bytes(4_000_000)) == 4_000_000


def test_who_reads_is_not_dropped_for_what_is_unread(fork):
    """One answer that is more than all may have unread goes out all the same; nobody else waits for a reader."""
    with serving(limits=cm.Limits(unread_bytes=1 << 20)) as served, cm.timeout(PATIENCE):
        proxy = served.capability.cast(Notes)
        for _ in range(5):
            assert len(proxy.make(4 << 20)) == 4 << 20


def test_each_user_has_a_bound_for_descriptors_that_lie_unread(hostile):
    """Also where each of its processes has but one answer of as many as one record carries."""
    with serving(limits=cm.Limits(unread_descriptors=600)) as served:

        def act():
            near = by_hand.knock(served.capability)
            near.send(by_hand.call(served.capability, b"pipes", b"\x91\xcc\xc8"))
            return near

        for _ in range(6):
            hostile(act)
        with cm.timeout(PATIENCE):
            assert served.capability.cast(Notes).double(2) == 4
        assert served.channels.unread.count <= 600


@pytest.mark.parametrize("name", ["max_bytes", "max_descriptors"])
@pytest.mark.parametrize("most", [-1, 1.5, True, None, "4"])
def test_maxima_are_whole_numbers(name, most):
    """What is none is refused when it is said, and not by the first call."""
    with pytest.raises(ValueError if most == -1 else TypeError, match=name):
        cm.Entrypoint("no", **{name: most})
