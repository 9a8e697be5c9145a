"""Closing what a stranger sent may block for as long as the stranger likes: it delays no other client."""

from __future__ import annotations

import io
import os
import socket

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.reaper_threads import THREADS_MAX
from capmarshal._protocol import wire as _wire

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE, NO_BADGE = by_hand.PATIENCE, _wire.NO_BADGE
# The stranger's sockets take longer to close than any test may take.
LONG = 600


@pytest.fixture
def capability():
    with by_hand.serving() as made:
        yield made
    made.close()


def others_are_served(capability):
    """Another client's call is answered, and what it lent is given back."""
    with cm.timeout(PATIENCE), by_hand.pipe() as (reader, writer):
        proxy = capability.cast(by_hand.Work)
        assert proxy.double(21) == 42
        assert proxy.count([writer, writer]) == 1
        writer.close()
        by_hand.at_end(reader)
    with cm.timeout(PATIENCE):
        mine, theirs = socket.socketpair()
        with mine, theirs:
            proxy.echo(theirs).close()
            theirs.close()
            mine.settimeout(PATIENCE)
            assert mine.recv(1) == b""


@pytest.mark.parametrize(
    "how", ["argument", "unreferenced", "malformed", "stale badge", "wrong count", "result", "in a queue"]
)
def test_a_lingering_socket_in_a_call_delays_nobody(capability, lingering, drain, how):
    """In whatever way a call brings it: the next client's call, and what it lent, wait for nothing."""
    number, peer = lingering(LONG)
    with by_hand.knock(capability) as near:
        table = [(0, NO_BADGE)]
        records = {
            "argument": by_hand.call(capability, b"count", b"\x91\x91\x00", table, 1),
            "unreferenced": by_hand.call(capability, descriptors=1),
            "malformed": by_hand.call(capability, version=9, descriptors=1),
            "stale badge": by_hand.call(capability, badge=b"g" * 16, descriptors=1),
            "wrong count": by_hand.call(capability),
            "result": by_hand.call(capability, b"echo", b"\x91\x00", table, 1),
        }
        # The server's copy is the last: ours is closed before it looks.
        with by_hand.busy(capability):
            _send(near, capability, records.get(how), number)
        _, descriptors = by_hand.answer(near)
        try:
            others_are_served(capability)
        finally:
            peer.close()
            for each in descriptors:
                os.close(each)


def _send(near, capability, record, number):
    """Sends the socket and closes our copy."""
    if record is None:
        # A unix socket that nobody reads from, with the other in its queue: it takes as long to close.
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with outer, inner:
            by_hand.send(outer, b"x", [number])
            by_hand.send(near, by_hand.call(capability, descriptors=1), [inner.fileno()])
    else:
        by_hand.send(near, record, [number])
    os.close(number)


def test_a_lingering_socket_that_is_left_in_a_channel_delays_nobody(capability, lingering):
    """A client that goes away with unread calls behind it leaves their descriptors to be closed."""
    number, peer = lingering(LONG)
    with by_hand.knock(capability) as near:
        # One record that ends the channel, and one behind it that is never read.
        with by_hand.busy(capability):
            by_hand.send(near, b"?")
            by_hand.send(near, by_hand.call(capability, descriptors=1), [number])
            os.close(number)
        assert by_hand.ended(near)
    others_are_served(capability)
    peer.close()


@pytest.mark.parametrize("count", [1, 2, 20, 253])
@pytest.mark.parametrize("last", [False, True])
def test_a_lingering_socket_in_a_knock_delays_nobody(capability, lingering, count, last):
    """Alone where a channel is due, or among others: what there is no room for, the kernel closes here and now."""
    number, peer = lingering(LONG)
    with by_hand.temporary() as file:
        with by_hand.busy(capability):
            numbers = [number] + [file.fileno()] * (count - 1)
            by_hand.at_door(capability, _wire.KNOCK_RECORD, numbers[::-1] if last else numbers)
            os.close(number)
        others_are_served(capability)
    peer.close()


@matrix.one_call_a_channel
def test_a_lingering_socket_in_an_answer_that_nobody_reads_delays_nobody(capability, lingering):
    """The server's own copy of a parked answer's descriptor goes the same way when the client has gone."""
    number, peer = lingering(LONG)
    near, far = by_hand.knock(capability, keep_far=True)
    with near:
        with far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            with by_hand.busy(capability):
                for call_id in range(1, 4):
                    near.send(by_hand.call(capability, b"blob", b"\x91\xcd\x03\xe8", id=call_id))
                record = by_hand.call(capability, b"echo", b"\x91\x00", [(0, NO_BADGE)], 1, id=99)
                by_hand.send(near, record, [number])
                os.close(number)
        others_are_served(capability)
    others_are_served(capability)
    peer.close()


def test_a_lingering_socket_does_not_keep_others_waiting_for_the_end(lingering):
    """An entrypoint that is closed wakes its clients, whatever else is being closed."""
    number, peer = lingering(LONG)
    with cm.Entrypoint("ending") as entrypoint:
        blocked, going = os.pipe()
        with by_hand.pipe() as (reader, writer):
            capability = entrypoint.manage(by_hand.Worker())
            with by_hand.knock(capability) as near:
                with by_hand.busy(capability):
                    by_hand.send(near, by_hand.call(capability, descriptors=1), [number])
                    os.close(number)
                by_hand.answer(near)

                def block():
                    with open(blocked, "rb") as go:
                        return capability.cast(by_hand.Work).block(writer, go)

                blocking = by_hand.Concurrent(block)
                assert reader.read(1) == b"."
                waiting = by_hand.Concurrent(capability.cast(by_hand.Work).double, 1)
                closing = by_hand.Concurrent(entrypoint.close)
                os.close(going)
                closing.outcome()
                assert blocking.outcome() == 1
                # It may have been answered before the end.
                try:
                    assert waiting.outcome() == 2
                except cm.Disconnected as error:
                    assert error.ran == "no"
                assert by_hand.ended(near)
    peer.close()


class Scribe(cm.Interface):
    """Writes to a file and fails."""

    @cm.method
    def write(self, out: io.BufferedWriter) -> None: ...


class FailingScribe(Scribe):
    def write(self, out):
        out.write(b"x" * 5000)
        raise ValueError("before it is flushed")


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_closing(capability):
    """What a failed call left in the buffer of a full pipe is not waited for: nothing queues behind it."""
    with cm.Entrypoint("scribe") as entrypoint, by_hand.pipe() as (reader, writer):
        os.set_blocking(writer.fileno(), False)
        while writer.write(bytes(4096)):
            pass
        os.set_blocking(writer.fileno(), True)
        proxy = entrypoint.manage(FailingScribe()).cast(Scribe)
        for _ in range(THREADS_MAX + 1):
            with pytest.raises(cm.RemoteError, match="before it is flushed"), cm.timeout(PATIENCE):
                proxy.write(writer)
        assert _reaper.wait(PATIENCE)
        others_are_served(capability)
        writer.close()
        by_hand.at_end(reader)
