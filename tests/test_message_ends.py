"""Where nothing more can come, what was sent before is received first, and then nobody waits or spins."""

import os
import socket
import threading
import time

import pytest

from capmarshal import CallTimeout, Descriptor, Disconnected, Message
from capmarshal._descriptors import reaper
from patience import PATIENCE


@pytest.fixture(params=[socket.SOCK_SEQPACKET, socket.SOCK_DGRAM], ids=["SEQPACKET", "DGRAM"])
def pair(request):
    one, other = socket.socketpair(socket.AF_UNIX, request.param)
    with one, other:
        yield one, other


@pytest.fixture
def seqpacket():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


@pytest.fixture
def dgram():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        yield one, other


@pytest.mark.parametrize("timeout", [0, PATIENCE, None])
def test_what_was_sent_comes_before_the_end_also_after_a_reset(seqpacket, timeout):
    """The kernel reports that a record of ours was not read before those that are queued (CASES 4.7)."""
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
    """By any holder of a copy: poll(2) says readable for ever, and a DGRAM socket is not; it spun (CASES 4.7)."""
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
