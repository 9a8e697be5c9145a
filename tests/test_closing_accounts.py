"""What waits to be closed is on the account of whoever sent it: a process, and its user."""

from __future__ import annotations

import contextlib
import os
import weakref

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand
import patience
from capmarshal._capabilities.capability import open_door_of
from capmarshal._protocol import wire as _wire
from capmarshal._server import answers
from capmarshal._server.ledger import Resource
from patience import PATIENCE
from served import channels, knock_in_vain, note, send_away, serving

pytestmark = pytest.mark.usefixtures("quiet_log")


def test_a_peer_whose_descriptors_take_long_to_close_is_held_back(fork, lingering, until, drain):
    """Above a bound its channels are not read, and others are; it goes on when they are closed."""
    slow = [lingering(4 * int(PATIENCE)) for _ in range(4)]
    with serving(limits=cm.Limits(closing=9)) as served, contextlib.ExitStack() as stack:
        nears = [stack.enter_context(contextlib.closing(by_hand.knock(served.capability))) for _ in slow]
        with by_hand.busy(served.capability):
            for near, (number, _) in zip(nears, slow, strict=True):
                send_away(near, served.capability, number)
        # This process is the one that is held back; a forked one is another.
        until(lambda: any(one.peer.held for one in served.channels.all()))

        def honest():
            with contextlib.closing(by_hand.knock(served.capability)) as other:
                return parts_by_hand.lives(other, served.capability)

        assert fork(honest).result()
        # All at once: in which order they are closed is the server's affair.
        for draining in [by_hand.Concurrent(drain, peer) for _, peer in slow]:
            draining.outcome()
        for near in nears:
            record, _ = by_hand.answer(near)
            assert bytes(record.payload) == b"\x01"
        until(lambda: not any(one.peer.held for one in served.channels.all()))


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param({"method": b"nothing"}, id="unknown method"),
        pytest.param({"badge": b"0123456789abcdef"}, id="no such object"),
        pytest.param({"payload": b"\x91\xc0"}, id="bad arguments"),
        pytest.param({"payload": b"\xc1"}, id="no payload"),
        pytest.param({"descriptors": 3}, id="others were announced"),
        pytest.param({"length": 500}, id="malformed"),
        pytest.param({"left": 1, "sent": 1}, id="too late"),
        pytest.param({"method": b"double", "payload": b"\x91\x15", "entries": ()}, id="nothing refers to it"),
    ],
)
def test_what_comes_with_a_call_and_is_no_argument_is_on_the_account_of_its_peer(lingering, refused):
    """Whatever it is refused for: its sender is held back as for arguments, and has its answer when all is closed."""
    slow = [lingering(4 * int(PATIENCE)) for _ in range(2)]
    with serving(limits=cm.Limits(closing=9)) as served, contextlib.ExitStack() as stack:
        nears = [stack.enter_context(one) for one in channels(served.capability, 2)]
        with by_hand.busy(served.capability):
            for near, (number, _) in zip(nears, slow, strict=True):
                send_away(near, served.capability, number, count=2, **refused)
        patience.until(lambda: any(one.peer.held for one in served.channels.all()))
        for near, (_, peer) in zip(nears, slow, strict=True):
            while peer.recv(1 << 20):
                pass
            record, _ = by_hand.answer(near)
            assert record is not None


def test_a_process_is_not_held_back_for_long_by_what_others_of_its_user_have(hostile, lingering):
    """A user has more that takes long to close than it may: its other processes go on, each with a call of its own."""
    number, peer = lingering(4 * int(PATIENCE))
    with serving(limits=cm.Limits(closing=32)) as served:

        def act():
            near = by_hand.knock(served.capability)
            send_away(near, served.capability, number, count=30)
            return near

        client = hostile(lambda: None, act)
        os.close(number)
        # So that the server's copies are the last.
        with by_hand.busy(served.capability):
            client.act()
        patience.until(lambda: any(one.peer.waiting > 24 for one in served.channels.all()))
        reader, writer = os.pipe()
        with cm.Descriptor(reader) as one, cm.Descriptor(writer), cm.timeout(PATIENCE):
            proxy = served.capability.cast(by_hand.Work)
            for _ in range(5):
                assert proxy.count([one]) == 1
        while peer.recv(1 << 20):
            pass
        client.child.kill()


def test_a_knock_waits_while_what_its_users_have_brought_is_not_closed(lingering, drain):
    """What it brings may have to be closed, too: the door waits, and then it opens."""
    slow = [lingering(4 * int(PATIENCE)) for _ in range(2)]
    with serving(limits=cm.Limits(closing=8)) as served:
        with by_hand.busy(served.capability):
            for number in [*(number for number, _ in slow), *(os.open(os.devnull, os.O_RDONLY) for _ in range(20))]:
                knock_in_vain(served.capability, number)
        server = served.entrypoint._service._server
        patience.until(lambda: server._closings.full and not server._doorkeeper.watch.slot)
        open_before = len(served.channels)
        with by_hand.knock(served.capability):
            for draining in [by_hand.Concurrent(drain, peer) for _, peer in slow]:
                assert len(served.channels) == open_before
                draining.outcome()
            # Until the last is closed, its peer may be held back.
            patience.until(lambda: is_admitted(served.capability))


def is_admitted(capability):
    """Whether a knock is not refused."""
    with by_hand.knock(capability) as near, contextlib.suppress(ConnectionError):
        near.send(note(capability, "late"))
        record, _ = by_hand.answer(near)
        return isinstance(record, _wire.Reply)
    return False


def test_an_answer_that_waits_for_its_arguments_to_be_closed_is_charged_to_its_peer(fork, lingering, monkeypatch):
    """It is in the server's memory as one that is not read is: above its share, the peer makes no more calls."""
    # As long as the test likes.
    monkeypatch.setattr(answers, "_CLOSING_PATIENCE", int(4 * PATIENCE * 1e9))
    slow = [lingering(4 * int(PATIENCE)) for _ in range(2)]
    size = 750_000
    with serving(max_bytes=1 << 20, limits=cm.Limits(unread_bytes=4 << 20)) as served, contextlib.ExitStack() as stack:
        *nears, another = (stack.enter_context(one) for one in channels(served.capability, 3))
        with by_hand.busy(served.capability):
            for near, (number, _) in zip(nears, slow, strict=True):
                payload = b"\x92\x00\xce" + size.to_bytes(4, "big")
                record = by_hand.call(served.capability, b"pad", payload, [(0, bytes(16))], 1)
                by_hand.send(near, record, [number])
                os.close(number)
        patience.until(lambda: served.total(Resource.UNREAD_BYTES) > 2 * size)
        another.send(note(served.capability, "held"))

        def honest():
            with contextlib.closing(by_hand.knock(served.capability)) as other:
                return parts_by_hand.lives(other, served.capability)

        assert fork(honest).result()
        assert served.book.calls_by == []
        for near, (_, peer) in zip(nears, slow, strict=True):
            while peer.recv(1 << 20):
                pass
            record, _ = parts_by_hand.long_answer(near)
            assert len(record.payload) > size
        by_hand.answer(another)
        assert served.book.calls_by == ["held"]
        # The last of it is received before the server notes that it is sent.
        patience.until(lambda: served.total(Resource.UNREAD_BYTES) == 0)


def test_a_peer_is_known_until_what_it_sent_is_closed(lingering):
    """To end its channels and knock anew gives it no second share; when all is closed, it is forgotten."""
    slow = [lingering(4 * int(PATIENCE)) for _ in range(2)]
    # Ten of them are one process's.
    with serving(limits=cm.Limits(closing=32)) as served:
        peers = []
        for count, (number, _) in enumerate(slow, 1):
            with by_hand.knock(served.capability) as near:
                with by_hand.busy(served.capability):
                    send_away(near, served.capability, number, count=8)
                patience.until(lambda most=8 * count: any(one.peer.waiting >= most for one in served.channels.all()))
                peers.append(weakref.ref(served.channels.all()[0].peer))
            open_door_of(served.capability).idle.clear()
            patience.until(lambda: len(peers) == 2 or len(served.channels) == 0)
        assert peers[0]() is peers[1]() is not None
        assert peers[0]().waiting >= 16
        assert peers[0]().held
        for _, peer in slow:
            while peer.recv(1 << 20):
                pass
        patience.until(lambda: len(served.channels) == 0)
        patience.until(lambda: peers[0]() is None)


@pytest.mark.parametrize("others_are", ["held", "dead"])
def test_a_peer_that_is_held_for_its_user_goes_on_when_there_is_room_again(hostile, lingering, others_are):
    """Whatever of its own still waits to be closed, and whether the process that has the rest lives."""
    (number, others), (own_number, own) = (lingering(4 * int(PATIENCE)) for _ in range(2))
    with serving(limits=cm.Limits(closing=32)) as served, contextlib.ExitStack() as stack:
        near, another = (stack.enter_context(one) for one in channels(served.capability, 2))

        def act():
            there = by_hand.knock(served.capability)
            send_away(there, served.capability, number, count=30)
            return there

        client = hostile(lambda: os.close(own_number), act)
        os.close(number)
        with by_hand.busy(served.capability):
            client.act()
        patience.until(lambda: any(one.peer.waiting > 24 for one in served.channels.all()))
        if others_are == "dead":
            client.child.kill()
            patience.until(lambda: {one.peer.pid for one in served.channels.all()} == {os.getpid()})
        with by_hand.busy(served.capability):
            send_away(near, served.capability, own_number)
        [peer] = {one.peer for one in served.channels.all() if one.peer.pid == os.getpid()}
        patience.until(lambda: peer.waiting and peer.held)
        another.send(note(served.capability, "held"))
        while others.recv(1 << 20):
            pass
        by_hand.answer(another)
        assert served.book.calls_by == ["held"]
        assert peer.waiting
        while own.recv(1 << 20):
            pass
