"""A server's turns (csrc/cm_turn.c): whatever the kernel reports is read, also where it is not looked at in each."""

import contextlib
import itertools
import os
import select
import socket
import time

import pytest

from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel.native import NOW, NULL, ffi, lib
from capmarshal._protocol import wire as _wire

# More than the kernel reports at a time, and than are reported again before they are not any more.
MANY = 150
# Turns between two looks at the kernel: as for a thread, and as for an event loop.
apart = pytest.mark.parametrize("apart", [0, 16])


class Turns:
    """Channels that are read by hand; slot N is that of ``nears[N - 1]``, and of peer 1."""

    def __init__(self, apart, stack):
        self.turn = ffi.new("struct cm_turn *")
        self.inbox = Inbox(within=self.turn)
        self.slots, self.peers = ffi.new("struct cm_slot[]", MANY + 2), ffi.new("struct cm_peer[]", 3)
        self.epoll = stack.enter_context(contextlib.closing(select.epoll()))
        ring, self.turn.epoll, self.turn.apart = self.turn.ring, self.epoll.fileno(), apart
        ring.slots, ring.n_slots, ring.peers, ring.n_peers = self.slots, MANY + 2, self.peers, 3
        self.nears = []
        self.stack = stack

    def add(self, peer=1):
        near, far = (self.stack.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self.nears.append(near)
        slot = self.slots[len(self.nears)]
        slot.descriptor, slot.peer, slot.kind, slot.room = far.fileno(), peer, lib.CM_CHANNEL, 4096
        slot.mode = lib.CM_READS | lib.CM_CALLS
        assert lib.cm_watch(self.turn, len(self.nears)) == 0
        self.stack.callback(far.close)
        return near

    def take(self):
        """The slot whose record was read in one turn; None: nobody has anything."""
        event = lib.cm_reply_wait(self.turn, NULL, 0, b"", 0, NOW)
        assert event in (lib.CM_RECORD, lib.CM_NOTHING)
        return int(self.turn.slot) if event == lib.CM_RECORD else None


@pytest.fixture
def turns(apart):
    with contextlib.ExitStack() as stack:
        yield Turns(apart, stack)


@apart
def test_each_of_many_channels_that_have_something_has_its_turn(turns):
    for _ in range(MANY):
        turns.add().send(b"one")
    for slot in range(1, MANY + 1):
        turns.nears[slot - 1].send(b"two")
    taken = list(itertools.takewhile(bool, (turns.take() for _ in range(3 * MANY))))
    assert sorted(taken) == sorted([*range(1, MANY + 1)] * 2)
    # And is reported again when there is more.
    for near in turns.nears:
        near.send(b"three")
    assert sorted(turns.take() for _ in range(MANY)) == [*range(1, MANY + 1)]
    assert turns.take() is None


@apart
def test_who_comes_while_others_have_much_to_say_is_seen_within_so_many_turns(turns, apart):
    for _ in range(MANY):
        turns.add().send(b"one")
    assert turns.take() is not None
    turns.add(peer=2).send(b"late")
    taken = [turns.take() for _ in range(apart + 2)]
    assert MANY + 1 in taken


@apart
def test_what_waits_is_not_reported_for_ever(turns):
    """Else each look at the kernel would cost more, the more wait."""
    for _ in range(MANY):
        turns.add().send(b"one")
    for _ in range(MANY * 4 // 5):
        assert turns.take() is not None
    waiting = [slot for slot in range(1, MANY + 1) if turns.slots[slot].place]
    assert len(waiting) == MANY // 5
    assert all(turns.slots[slot].disarmed for slot in waiting)


class Calls:
    """A channel whose calls are read by hand: the badge that a server sees is the one that was sent, by ``secret``."""

    def __init__(self, stack, most=2, secret=bytes(16)):
        self.turns = Turns(0, stack)
        self.near, self.turn = self.turns.add(), self.turns.turn
        self.turn.most = most
        slot = self.turns.slots[1]
        slot.mode |= lib.CM_PLAIN
        slot.secret = memoryview(secret).cast("Q").tolist()

    def send(self, badge, method, payload=b"payload", entries=(), numbers=(), left=_wire.NO_LIMIT):
        record = _wire.pack_call(1, badge, left, time.monotonic_ns(), method, entries, len(numbers), payload)
        if numbers:
            socket.send_fds(self.near, [record], numbers)
        else:
            self.near.send(record)
        return len(record)

    def receive(self, known):
        event = lib.cm_reply_wait(self.turn, NULL, 0, known, len(known), NOW)
        self.turns.inbox.steal().close()
        return event


@pytest.fixture
def calls():
    with contextlib.ExitStack() as stack:
        yield Calls(stack)


BADGE, OTHER = bytes(range(16)), bytes(range(1, 17))
PLAIN = [_wire.Entry(slot, bytes(16)) for slot in range(3)]


def test_a_call_of_what_is_known_is_told_by_its_size(calls):
    """Data alone, with plain descriptors in their order or not, with a capability; however short what is known is."""
    for method in (b"m", b"", b"longer" * 40):
        size = calls.send(BADGE, method)
        assert calls.receive(BADGE + method) == size
        size = calls.send(BADGE, method, b"", PLAIN[:2], [0, 1])
        assert calls.receive(BADGE + method) == lib.CM_IN_ORDER_SIZE + size
        size = calls.send(BADGE, method, b"", PLAIN[1::-1], [0, 1])
        assert calls.receive(BADGE + method) == lib.CM_WHOLE_SIZE + size
        size = calls.send(BADGE, method, b"", [_wire.Entry(0, OTHER)], [0])
        assert calls.receive(BADGE + method) == lib.CM_WHOLE_SIZE + size


@pytest.mark.parametrize("known", [b"", BADGE, BADGE + b"", BADGE + b"n", BADGE + b"mm", OTHER + b"m", b"\0" * 17])
def test_a_call_of_anything_else_is_told_as_ever(calls, known):
    """Another object, or another method, also one whose name begins with that."""
    calls.send(BADGE, b"m")
    assert calls.receive(known) == lib.CM_DATA
    calls.send(BADGE, b"m", b"", PLAIN[:1], [0])
    assert calls.receive(known) == lib.CM_IN_ORDER
    calls.send(BADGE, b"m", b"", [_wire.Entry(0, OTHER)], [0])
    assert calls.receive(known) == lib.CM_WHOLE


def test_what_there_is_to_tell_of_a_call_of_what_is_known_is_told(calls):
    """A deadline, or too many descriptors."""
    known = BADGE + b"m"
    calls.send(BADGE, b"m", left=10**12)
    assert calls.receive(known) == lib.CM_DATA_LIMITED
    calls.send(BADGE, b"m", b"", PLAIN[:1], [0], left=10**12)
    assert calls.receive(known) == lib.CM_IN_ORDER
    calls.send(BADGE, b"m", b"", [_wire.Entry(0, OTHER)], [0], left=10**12)
    assert calls.receive(known) == lib.CM_WHOLE
    calls.send(BADGE, b"m", b"", PLAIN, [0, 1, 2])
    assert calls.receive(known) == lib.CM_RECORD


def test_what_is_known_is_what_the_server_keeps_the_object_under():
    """The same badge through another door is another object's."""
    secret = os.urandom(16)
    kept = bytes(a ^ b for a, b in zip(BADGE, secret, strict=True))
    with contextlib.ExitStack() as stack:
        calls = Calls(stack, secret=secret)
        calls.send(BADGE, b"m")
        assert calls.receive(BADGE + b"m") == lib.CM_DATA
        size = calls.send(BADGE, b"m")
        assert calls.receive(kept + b"m") == size
