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
from capmarshal._descriptors import reaper
from capmarshal._protocol.states import State
from capmarshal._server import answers, turns
from patience import PATIENCE
from served import Notebook, channels, send_away, serving

pytestmark = pytest.mark.usefixtures("quiet_log")


def closing(served):
    """The channel whose answer waits; a server in an event loop may run the call later than one that came later."""
    return patience.until(lambda: next((one for one in served.channels.all() if one.state is State.CLOSING), None))


def test_an_answer_waits_for_what_its_call_sent_to_be_closed(lingering, monkeypatch):
    """Others are served meanwhile, and it leaves when that is closed."""
    # As long as the test likes.
    monkeypatch.setattr(answers, "_CLOSING_PATIENCE", int(4 * PATIENCE * 1e9))
    number, peer = lingering(4 * int(PATIENCE))
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as near, cm.timeout(PATIENCE):
        with by_hand.busy(served.capability):
            send_away(near, served.capability, number)
        waiting = closing(served)
        assert served.capability.cast(by_hand.Work).double(1) == 2
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


def test_descriptors_wait_unread_for_a_full_table_to_be_emptied(fork, hostile, lingering, monkeypatch):
    """What would be lost is left in its queue until what fills the table is closed: the call is late, and not lost."""
    # As long as the test likes.
    monkeypatch.setattr(turns, "_SCARCE_PATIENCE", int(4 * PATIENCE * 1e9))
    with by_hand.server_process(fork, table=160) as (_, capability), by_hand.knock(capability) as near:
        opened = []

        def knock():
            opened.extend(channels(capability, 1))

        def call():
            table = [(slot, bytes(16)) for slot in range(60)]
            record = by_hand.call(capability, b"count", b"\x91\xdc\x00\x3c" + bytes(range(60)), table, 60)
            with by_hand.pipe() as (reader, _writer):
                by_hand.send(opened[0], record, [reader.fileno()] * 60)

        def answered():
            assert bytes(by_hand.answer(opened[0])[0].payload) == b"\x01"

        client = hostile(knock, call, answered)
        another = hostile(knock, lambda: parts_by_hand.lives(opened[0], capability))
        # After the others were forked, which would have copies of it: the arguments of one call, most of the table.
        number, slow = lingering(4 * int(PATIENCE))
        with by_hand.busy(capability):
            send_away(near, capability, number, count=100)
        client.act()
        # Served after that one has been looked at.
        another.act()
        while slow.recv(1 << 20):
            pass
        client.act()
        assert bytes(by_hand.answer(near)[0].payload) == b"\x02"
        # They have copies of what tells the server to end.
        client.child.kill()
        another.child.kill()


def test_an_answer_that_waited_is_not_kept_when_it_is_sent(lingering, monkeypatch):
    """Not even by what would have sent it late."""
    # Longer than the test waits.
    monkeypatch.setattr(answers, "_CLOSING_PATIENCE", int(4 * PATIENCE * 1e9))
    number, peer = lingering(4 * int(PATIENCE))
    with serving() as served, contextlib.closing(by_hand.knock(served.capability)) as near:
        with by_hand.busy(served.capability):
            send_away(near, served.capability, number)
        outbox = weakref.ref(closing(served).outbox)
        while peer.recv(1 << 20):
            pass
        by_hand.answer(near)
        patience.until(lambda: outbox() is None)


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


# Results that take long to close.


def test_a_channel_does_not_wait_for_ever_for_its_results_to_be_closed(slow):
    """After a second the next call on it is read."""
    with serving() as served, by_hand.knock(served.capability) as near, by_hand.pipe() as (reader, _):
        served.book.given = given = slow("", None, reader.fileno())
        near.send(by_hand.call(served.capability, b"give", b"\x90"))
        _, numbers = by_hand.answer(near)
        parts_by_hand.close_all(numbers)
        assert given.begun.wait(PATIENCE)
        assert parts_by_hand.lives(near, served.capability)
        assert reaper.behind()


def test_leaving_does_not_wait_for_results_to_be_closed(slow, monkeypatch):
    """Their call is answered: its channel ends, and the entrypoint with it."""
    # As long as the test likes.
    monkeypatch.setattr(answers, "_CLOSING_PATIENCE", int(4 * PATIENCE * 1e9))
    with cm.Entrypoint("leaving", close_timeout=10 * PATIENCE) as entrypoint, by_hand.pipe() as (reader, _):
        book = Notebook()
        capability = entrypoint.manage(book)
        with by_hand.knock(capability) as near:
            book.given = given = slow("", None, reader.fileno())
            near.send(by_hand.call(capability, b"give", b"\x90"))
            _, numbers = by_hand.answer(near)
            parts_by_hand.close_all(numbers)
            assert given.begun.wait(PATIENCE)
            by_hand.Concurrent(entrypoint.__exit__, None, None, None).outcome()
            assert by_hand.ended(near)
            assert reaper.behind()
    capability.close()


class Lender(cm.Interface):
    @cm.method
    def lend(self, times: int) -> int: ...


class LenderServer(Lender):
    def __init__(self, whom):
        self.whom = whom

    def lend(self, times):
        """How often what a call was lent was still open when it had returned."""
        still_open = 0
        for _ in range(times):
            reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            with cm.Descriptor(reader), cm.Descriptor(writer) as lent:
                self.whom.count([lent])
                lent.close()
                try:
                    os.read(reader, 1)
                except BlockingIOError:
                    still_open += 1
        return still_open


def test_what_a_call_inline_was_lent_is_closed_when_it_returns():
    """As over a channel: the caller's next step may need that."""
    with serving() as served, cm.timeout(PATIENCE):
        # A proxy, though it is of the same entrypoint.
        lender = LenderServer(served.capability.cast(by_hand.Work))
        assert served.entrypoint.manage(lender).cast(Lender).lend(100) == 0
