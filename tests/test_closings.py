"""Closing what a call sent and returned: before its answer leaves, not in the serving thread, and within bounds."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import weakref

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand
import patience
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.states import State
from patience import PATIENCE
from served import channels, note, send_away, serving

pytestmark = pytest.mark.usefixtures("quiet_log")


def test_an_answer_waits_for_what_its_call_sent_to_be_closed(lingering):
    """Others are served meanwhile, and it leaves when that is closed."""
    number, peer = lingering(4 * int(PATIENCE))
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as near, cm.timeout(PATIENCE):
        with by_hand.busy(served.capability):
            send_away(near, served.capability, number)
        proxy = served.capability.cast(by_hand.Work)
        assert proxy.double(1) == 2
        [waiting] = [one for one in served.channels.all() if one.state is State.CLOSING]
        assert select.select([near], [], [], 0)[0] == []
        while peer.recv(1 << 20):
            pass
        record, _ = by_hand.answer(near)
        assert bytes(record.payload) == b"\x01"
        patience.until(lambda: waiting.state is State.IDLE)


def test_an_answer_does_not_wait_for_ever(lingering, caplog):
    """After a second it leaves, and the log says why."""
    caplog.set_level(logging.WARNING, "capmarshal")
    number, peer = lingering(4 * int(PATIENCE))
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as near:
        with by_hand.busy(served.capability):
            send_away(near, served.capability, number)
        record, _ = by_hand.answer(near)
        assert bytes(record.payload) == b"\x01"
        while peer.recv(1 << 20):
            pass
    assert any("closing it takes so long" in record.getMessage() for record in caplog.records)
    caplog.clear()


def test_a_peer_whose_descriptors_take_long_to_close_is_held_back(fork, lingering, until):
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
        for _, peer in slow:
            while peer.recv(1 << 20):
                pass
        for near in nears:
            record, _ = by_hand.answer(near)
            assert bytes(record.payload) == b"\x01"
        until(lambda: not any(one.peer.held for one in served.channels.all()))


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_calls_one_after_the_other_do_not_fill_the_table(fork, kind, tmp_path):
    """What one call sent is closed when the next is sent, though nearly all of the table, and closed elsewhere."""
    with by_hand.server_process(fork, table=1024) as (_, capability), contextlib.ExitStack() as stack:
        if kind == "pipe":
            reader, writer = os.pipe()
            os.close(writer)
        else:
            (tmp_path / "file").touch()
            reader = os.open(tmp_path / "file", os.O_RDONLY | os.O_CLOEXEC)
        one = stack.enter_context(cm.Descriptor(reader))
        proxy = capability.cast(by_hand.Work)
        with cm.timeout(4 * PATIENCE):
            for _ in range(60):
                assert proxy.count([one] * 900) == 1


def test_descriptors_wait_unread_for_a_full_table_to_be_emptied(fork, lingering):
    """What would be lost is left in its queue until what fills the table is closed: the call is late, and not lost."""
    with by_hand.server_process(fork, table=160) as (_, capability), contextlib.ExitStack() as stack:
        # After the server was forked, which would have copies of them.
        slow = [lingering(4 * int(PATIENCE)) for _ in range(2)]
        # From another process: two calls whose 45 arguments each take long to close, all of the reaper's time for it.
        nears = [stack.enter_context(contextlib.closing(by_hand.knock(capability))) for _ in slow]
        with by_hand.busy(capability):
            for near, (number, _) in zip(nears, slow, strict=True):
                send_away(near, capability, number, count=45)

        def another():
            reader, writer = os.pipe()
            with cm.Descriptor(reader) as one, cm.Descriptor(writer), cm.timeout(PATIENCE):
                return capability.cast(by_hand.Work).count([one] * 60)

        child = fork(another)
        for _, peer in slow:
            while peer.recv(1 << 20):
                pass
        assert child.result() == 1
        for near in nears:
            record, _ = by_hand.answer(near)
            assert bytes(record.payload) == b"\x02"


def test_an_answer_that_waited_is_not_kept_when_it_is_sent(lingering):
    """Not even by what would have sent it late."""
    number, peer = lingering(4 * int(PATIENCE))
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as near:
        with by_hand.busy(served.capability):
            send_away(near, served.capability, number)
        # After this the server is done with the turn that answered the call which kept it busy, and with that of ours.
        with cm.timeout(PATIENCE):
            assert served.capability.cast(by_hand.Work).double(1) == 2
        [channel] = [one for one in served.channels.all() if one.state is State.CLOSING]
        outbox = weakref.ref(channel.outbox)
        while peer.recv(1 << 20):
            pass
        by_hand.answer(near)
        patience.until(lambda: outbox() is None, 0.5)


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


def test_no_knock_is_taken_while_too_much_waits_to_be_closed(lingering):
    """What a knock brings would have to be closed, too: the door waits, open channels go on, and then it opens."""
    number, peer = lingering(4 * int(PATIENCE))
    with serving(limits=cm.Limits(closing=8)) as served, contextlib.ExitStack() as stack:
        near, early = (stack.enter_context(one) for one in channels(served.capability, 2))
        with by_hand.busy(served.capability):
            send_away(near, served.capability, number, count=30)
        patience.until(lambda: served.entrypoint._service._server._closings.full)
        late = stack.enter_context(by_hand.knock(served.capability))
        patience.until(lambda: not served.entrypoint._service._server._door_slot)
        open_before = len(served.channels)
        late.send(note(served.capability, "late"))
        while peer.recv(1 << 20):
            pass
        record, _ = by_hand.answer(late)
        assert isinstance(record, _wire.Reply)
        assert len(served.channels) == open_before + 1
        assert parts_by_hand.lives(early, served.capability)


class Raw(io.RawIOBase):
    """A raw file of the user's own, whose fileno() works as often as it is told."""

    def __init__(self, number, times):
        self.number, self.times = number, times

    def fileno(self):
        self.times -= 1
        if self.times < 0:
            raise RuntimeError("no more")
        return self.number

    def readable(self):
        return True


@pytest.mark.parametrize("times", range(6))
def test_a_raw_file_of_the_users_own_ends_nothing(times, tmp_path):
    """Its fileno() may raise where it is closed: that is its call's concern, not the service's."""

    class Opener(cm.Interface):
        @cm.method
        def open(self) -> io.BufferedReader: ...

    class OpenerServer(Opener):
        def open(self):
            return io.BufferedReader(Raw(number, times))

    (tmp_path / "file").write_bytes(b"x")
    number = os.open(tmp_path / "file", os.O_RDONLY | os.O_CLOEXEC)
    with cm.Entrypoint("opener") as entrypoint, cm.Descriptor(number), cm.timeout(PATIENCE):
        proxy = entrypoint.manage(OpenerServer()).cast(Opener)
        for _ in range(2):
            with contextlib.suppress(cm.RemoteError, cm.ArgumentError):
                proxy.open().close()
