"""Where nothing more can come, what was sent before is received first, and then nobody waits or spins."""

import os
import signal
import socket
import threading
import time

import pytest

from capmarshal import CallTimeout, Descriptor, Disconnected, Message
from capmarshal._descriptors import reaper
from patience import PATIENCE


@pytest.fixture
def dgram():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        yield one, other


@pytest.mark.parametrize("timeout", [0, PATIENCE, None])
def test_what_was_sent_comes_before_the_end_also_after_a_reset(seqpacket, timeout):
    """The kernel reports that a record of ours was not read before those that are queued."""
    near, far = seqpacket
    Message(b"never read").send(near)
    with open(os.devnull) as file:
        Message(b"first").send(far)
        Message(b"second", [file]).send(far)
    far.close()
    assert Message.receive(near, timeout).data == b"first"
    with Message.receive(near, timeout) as second:
        assert (second.data, len(second.descriptors)) == (b"second", 1)
    for _ in range(2):
        with pytest.raises(Disconnected, match="closed"):
            Message.receive(near, timeout)


def receiving(sock, timeout, outcome):
    try:
        outcome.append(Message.receive(sock, timeout))
    except (CallTimeout, Disconnected) as error:
        outcome.append(error)


@pytest.mark.parametrize("timeout", [0, 0.05, PATIENCE, None])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_socket_that_is_shut_down_for_receiving_has_ended(pair, timeout, blocking):
    """By any holder of a copy: poll(2) says readable for ever, and a DGRAM socket is not; it spun."""
    one, other = pair
    Message(b"before").send(other)
    one.setblocking(blocking)
    with one.dup() as copy:
        copy.shutdown(socket.SHUT_RD)
    assert Message.receive(one, timeout).data == b"before"
    outcome = []
    receiver = threading.Thread(target=receiving, args=(one, timeout, outcome), daemon=True)
    receiver.start()
    receiver.join(PATIENCE / 2)
    assert [type(each) for each in outcome] == [Disconnected]
    assert "shut down" in str(outcome[0])


def test_a_shutdown_wakes_who_is_waiting(pair):
    """With a deadline and without: it is the end, not a timeout."""
    one, _other = pair
    for timeout in (None, PATIENCE):
        outcome = []
        receiver = threading.Thread(target=receiving, args=(one, timeout, outcome), daemon=True)
        receiver.start()
        with one.dup() as copy:
            copy.shutdown(socket.SHUT_RD)
        receiver.join(PATIENCE / 2)
        assert [type(each) for each in outcome] == [Disconnected]


def test_a_shutdown_for_sending_is_no_end_for_the_receiver(dgram):
    """Of a DGRAM socket's other end others may take the place, and what comes is received."""
    one, other = dgram
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(CallTimeout):
        Message.receive(one, timeout=0)
    with pytest.raises(CallTimeout):
        Message.receive(one, timeout=0.01)


def test_closing_a_message_waits_for_no_stranger(seqpacket, lingering, drain):
    """Its sender may have sent what takes a minute to close."""
    number, peer = lingering(60)
    Message(b"x", [number]).send(seqpacket[1])
    os.close(number)
    received = Message.receive(seqpacket[0], PATIENCE)
    begun = time.monotonic()
    received.close()
    assert time.monotonic() - begun < 30
    assert reaper.behind(), "the close did not block, so this test shows nothing"
    drain(peer)
    assert reaper.wait(PATIENCE)


def test_what_an_honest_sender_sent_is_closed_when_close_returns(seqpacket):
    """Also what the reaper has to close: a pipe's end is at its end then."""
    reader, writer = os.pipe()
    with Descriptor(reader) as kept:
        Message(b"x", [writer]).send(seqpacket[1])
        os.close(writer)
        Message.receive(seqpacket[0], PATIENCE).close()
        os.set_blocking(kept.fileno(), False)
        assert os.read(kept.fileno(), 1) == b""


# Longer than any test takes: a wait that reaches it hangs.
LONG = 60


# ---- the other side is gone


def test_the_end_comes_after_everything_that_was_sent(seqpacket, files):
    """Closed after a message: the message first, then Disconnected, again and again; a ConnectionError."""
    Message(b"last", files(1)).send(seqpacket[0])
    seqpacket[0].close()
    with Message.receive(seqpacket[1], timeout=LONG) as message:
        assert message.data == b"last"
    for _ in range(2):
        with pytest.raises(ConnectionError) as caught:
            Message.receive(seqpacket[1], timeout=LONG)
        assert isinstance(caught.value, Disconnected)


def test_a_send_to_nobody_is_disconnected_and_no_signal(pair, fork):
    """EPIPE or ECONNREFUSED: Disconnected, certainly not sent, and SIGPIPE is not raised."""
    pair[1].close()

    def child():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            Message(b"x").send(pair[0])
        except Disconnected as error:
            return error.ran
        return "sent"

    assert fork(child).result() == "no"


def test_a_peer_that_closed_without_reading(seqpacket):
    """A record of ours that was never read: it is the end, as if it had been."""
    Message(b"x").send(seqpacket[0])
    seqpacket[1].close()
    for _ in range(2):
        with pytest.raises(Disconnected, match="closed"):
            Message.receive(seqpacket[0], timeout=LONG)


def test_a_peer_that_is_killed_wakes_the_receiver(seqpacket, run_peer):
    """SIGKILL, no time to say anything: a receiver without a deadline wakes."""

    def victim(sock):
        Message(b"alive").send(sock)
        Message.receive(sock)

    peer = run_peer(victim, seqpacket[1])
    seqpacket[1].close()
    assert Message.receive(seqpacket[0], timeout=LONG).data == b"alive"
    killer = threading.Thread(target=peer.kill)
    killer.start()
    with pytest.raises(Disconnected):
        Message.receive(seqpacket[0])
    killer.join()


def test_a_receiver_that_closes_wakes_a_blocked_sender(seqpacket, run_peer, until):
    """Waiting for room without a deadline, when the last reader goes: Disconnected."""

    def sender(sock):
        try:
            while True:
                Message(bytes(1000)).send(sock)
        except Disconnected as error:
            print(error.ran)

    peer = run_peer(sender, seqpacket[1])
    seqpacket[1].close()
    Message.receive(seqpacket[0], timeout=LONG)
    until(peer.asleep)
    seqpacket[0].close()
    assert peer.finish() == "no\n"


def test_an_empty_record_of_a_foreign_sender_is_not_the_end(pair):
    """Others do send records of 0 bytes: an empty message, and what comes after it is received."""
    pair[0].send(b"")
    Message(b"more").send(pair[0])
    assert [Message.receive(pair[1], timeout=LONG).data for _ in range(2)] == [b"", b"more"]
