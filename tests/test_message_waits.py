"""Message: how long a send and a receive wait, and what a signal does to that."""

import contextlib
import fcntl
import math
import os
import signal
import socket
import sys
import time

import pytest

from capmarshal import Message
from capmarshal._kernel.deadline import timeout
from capmarshal._kernel.errors import (
    CallTimeout,
    Disconnected,
)

# Longer than any test takes: a wait that reaches it hangs.
LONG = 60


def _fill(sock, message):
    """Sends until the queue is full; how many fitted."""
    sent = 0
    with contextlib.suppress(CallTimeout):
        while True:
            message.send(sock, timeout=0)
            sent += 1
    return sent


@contextlib.contextmanager
def _alarms(handler, interval=0.02):
    """Has ``handler`` run as a signal handler again and again."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- deadlines


def test_receive_without_waiting(pair):
    """timeout=0: CallTimeout where nothing is there, the message where one is."""
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)
    Message(b"x").send(pair[0])
    assert Message.receive(pair[1], timeout=0).data == b"x"


@pytest.mark.parametrize("bound", ["argument", "block", "outer block"])
def test_receive_waits_until_the_deadline(pair, bound):
    """The earliest of the argument and the blocks around it holds; CallTimeout is a TimeoutError."""
    outer, inner, argument = {
        "argument": (LONG, LONG, 0.1),
        "block": (LONG, 0.1, None),
        "outer block": (0.1, LONG, LONG),
    }[bound]
    begun = time.monotonic()
    with timeout(outer), timeout(inner), pytest.raises(TimeoutError) as caught:
        Message.receive(pair[1], timeout=argument)
    assert 0.1 <= time.monotonic() - begun < LONG / 2
    assert isinstance(caught.value, CallTimeout)
    assert caught.value.ran == "no"


def test_a_timeout_block_ends_with_the_block(pair):
    """After it, its deadline is forgotten, whether it passed or not."""
    with timeout(0), pytest.raises(CallTimeout):
        Message.receive(pair[1])
    Message(b"x").send(pair[0])
    with _alarms(lambda *_: Message(b"late").send(pair[0], timeout=0)):
        assert [Message.receive(pair[1]).data for _ in range(2)] == [b"x", b"late"]


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan])
def test_a_timeout_that_is_none_is_refused(pair, seconds):
    """Negative or not a number: ValueError, nothing waited for or sent."""
    with pytest.raises(ValueError, match="0 or more"):
        Message.receive(pair[1], timeout=seconds)
    with pytest.raises(ValueError, match="0 or more"):
        Message(b"x").send(pair[0], timeout=seconds)
    with pytest.raises(ValueError, match="0 or more"):
        timeout(seconds)


@pytest.mark.parametrize("seconds", [1e300, math.inf, 10**12])
def test_a_far_away_deadline_is_one(pair, seconds):
    """Infinity and friends wait, and neither overflow nor return at once."""
    with _alarms(lambda *_: Message(b"late").send(pair[0], timeout=0)):
        assert Message.receive(pair[1], timeout=seconds).data == b"late"


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_a_full_queue_ends_a_send_at_its_deadline(pair, files, seconds):
    """CallTimeout, nothing sent, no descriptor kept: what arrives is exactly what send() returned for."""
    sent = _fill(pair[0], Message(bytes(1000)))
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        Message(bytes(1000), files(3)).send(pair[0], timeout=seconds)
    assert time.monotonic() - begun >= seconds
    for _ in range(sent):
        assert not Message.receive(pair[1], timeout=0).descriptors
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)


def test_a_full_queue_ends_a_send_at_the_deadline_of_its_block(pair):
    """The block bounds a send too."""
    _fill(pair[0], Message(bytes(1000)))
    with timeout(0.05), pytest.raises(CallTimeout):
        Message(bytes(1000)).send(pair[0])


def test_receive_waits_though_the_peer_made_the_socket_non_blocking(seqpacket, run_peer):
    """O_NONBLOCK belongs to the open file, so whoever shares it can set it: receive() waits all the same."""

    def meddler(shared):
        shared.setblocking(False)

    run_peer(meddler, seqpacket[1]).finish()
    assert fcntl.fcntl(seqpacket[1], fcntl.F_GETFL) & os.O_NONBLOCK
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        Message.receive(seqpacket[1], timeout=0.1)
    assert time.monotonic() - begun >= 0.1
    with _alarms(lambda *_: Message(b"late").send(seqpacket[0], timeout=0)):
        assert Message.receive(seqpacket[1]).data == b"late"


def test_receive_waits_though_the_socket_has_a_timeout_of_its_own(seqpacket):
    """SO_RCVTIMEO of whoever shares the socket: ends no wait of ours."""
    seqpacket[1].setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, (0).to_bytes(8, sys.byteorder) + bytes([1] + [0] * 7)
    )
    with _alarms(lambda *_: Message(b"late").send(seqpacket[0], timeout=0), 0.1):
        assert Message.receive(seqpacket[1]).data == b"late"


def test_send_waits_though_the_socket_is_non_blocking(seqpacket):
    """As above, for a sender: it waits while the queue is full, and goes on when there is room."""
    seqpacket[0].setblocking(False)
    sent = _fill(seqpacket[0], Message(bytes(1000)))
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        Message(b"x").send(seqpacket[0], timeout=0.1)
    assert time.monotonic() - begun >= 0.1

    def make_room(*_):
        for _ in range(sent):
            seqpacket[1].recv(1000, socket.MSG_DONTWAIT)
        signal.setitimer(signal.ITIMER_REAL, 0)

    with _alarms(make_room, 0.1):
        Message(b"x").send(seqpacket[0])
    assert seqpacket[1].recv(10) == b"x"


# ---- signals


@pytest.mark.parametrize("operation", ["receive", "send"])
def test_a_signal_handler_runs_and_the_wait_goes_on_to_its_deadline(pair, operation):
    """EINTR is no error: handlers run many times, and the deadline stays where it was."""
    ran = []
    if operation == "send":
        _fill(pair[0], Message(bytes(1000)))
        wait, sock = Message(bytes(1000)).send, pair[0]
    else:
        wait, sock = Message.receive, pair[1]
    begun = time.monotonic()
    with _alarms(lambda *_: ran.append(1)), pytest.raises(CallTimeout):
        wait(sock, timeout=0.3)
    assert len(ran) > 2
    assert 0.3 <= time.monotonic() - begun < LONG / 2


def test_a_signal_during_a_send_sends_once(pair):
    """Interrupted, then the handler makes room: the message arrives, and arrives once."""
    sent = _fill(pair[0], Message(bytes(1000)))
    drained = []

    def make_room(*_):
        with contextlib.suppress(CallTimeout):
            while len(drained) < sent:
                drained.append(Message.receive(pair[1], timeout=0).data)

    with _alarms(make_room):
        Message(b"the one").send(pair[0], timeout=LONG)
    make_room()
    assert Message.receive(pair[1], timeout=LONG).data == b"the one"
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)


def test_a_signal_handler_may_receive_while_its_thread_does(make_pair, files, identity):
    """Each gets its own message: the memory that is received into is not shared."""
    outer, inner = make_pair(), make_pair()
    sent = files(2)
    got = []

    def handler(*_):
        if not got:
            Message(b"inner", sent[:1]).send(inner[0])
            got.append(Message.receive(inner[1], timeout=LONG))
            Message(b"outer", sent[1:]).send(outer[0])

    with _alarms(handler), Message.receive(outer[1], timeout=LONG) as message, got[0]:
        assert [(m.data, identity(m.descriptors[0])) for m in (got[0], message)] == [
            (b"inner", identity(sent[0])),
            (b"outer", identity(sent[1])),
        ]


@pytest.mark.parametrize("seconds", [None, 60])
def test_ctrl_c_ends_a_receive(seqpacket, run_peer, until, seconds):
    """SIGINT while it waits raises KeyboardInterrupt; the next receive works as if nothing had been."""

    def waiter(sock, seconds):
        print("ready", flush=True)
        try:
            Message.receive(sock, timeout=seconds)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(Message.receive(sock, timeout=60).data.decode())

    peer = run_peer(waiter, seqpacket[1], seconds)
    assert peer.line() == "ready"
    until(peer.asleep)
    os.kill(peer.pid, signal.SIGINT)
    assert peer.line() == "interrupted"
    Message(b"after").send(seqpacket[0])
    assert peer.finish() == "after\n"


def test_ctrl_c_ends_a_send(seqpacket, run_peer, until):
    """As above, for a sender whose receiver's queue is full; the unsent message does not arrive."""

    def sender(sock):
        sent = 0
        try:
            while True:
                Message(b"x").send(sock, timeout=0)
                sent += 1
        except TimeoutError:
            print(sent, flush=True)
        try:
            Message(b"y").send(sock)
        except KeyboardInterrupt:
            print("interrupted", flush=True)

    peer = run_peer(sender, seqpacket[1])
    seqpacket[1].close()
    sent = int(peer.line())
    until(peer.asleep)
    os.kill(peer.pid, signal.SIGINT)
    assert peer.finish() == "interrupted\n"
    assert [Message.receive(seqpacket[0], timeout=LONG).data for _ in range(sent)] == [b"x"] * sent
    with pytest.raises(Disconnected):
        Message.receive(seqpacket[0], timeout=LONG)
