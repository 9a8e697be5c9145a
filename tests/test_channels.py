"""The channels of a server: what one costs does not depend on how many there are."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys

import pytest

import by_hand
import capmarshal as cm
from capmarshal._protocol.states import Event, State


class Unserved:
    """An entrypoint that nobody serves: its server's parts are driven by the test."""

    def __init__(self, **options):
        self.entrypoint = cm.Entrypoint("unserved", **options)
        self.capability = self.entrypoint.manage(by_hand.Worker())
        self.server = self.entrypoint._service._server
        self.channels = self.server._channels
        self.nears = []

    def knock(self, count):
        """So many channels, admitted."""
        for _ in range(count):
            self.nears.append(by_hand.knock(self.capability))
            self.server._doorkeeper.open()

    def close(self):
        for near in self.nears:
            near.close()
        self.entrypoint.close()


@pytest.fixture
def unserved():
    """unserved(**options): closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            made = Unserved(**options)
            stack.callback(made.close)
            return made

        yield make


def calls_of(function, *arguments):
    """How many calls, of Python's functions and C's, that makes."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    gc.collect()
    gc.disable()
    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_the_end_of_a_channel_looks_at_no_other(unserved):
    """The death of a client with thousands of them does not take the square of that."""
    counts = []
    for many in (20, 400):
        made = unserved(limits=cm.Limits(channels=2000))
        made.knock(many)
        first, second = made.channels.all()[:2]
        made.server._endings.forget(first)
        counts.append(calls_of(made.server._endings.forget, second))
    assert counts[1] <= counts[0] + 5


def test_a_knock_at_a_full_table_looks_at_few(unserved):
    """Whoever gives way is found without a look at all."""
    counts = []
    for many in (40, 400):
        made = unserved(limits=cm.Limits(channels=many, process_share=1, user_share=1))
        made.knock(many)
        assert len(made.channels) == many
        made.nears.append(by_hand.knock(made.capability))
        counts.append(calls_of(made.server._doorkeeper.open))
        assert len(made.channels) == many
    # Both look at 32 of them.
    assert counts[1] <= counts[0] * 1.5


def test_the_one_that_is_not_used_for_longest_gives_way(unserved):
    """Among those that are looked at; and one that is receiving a call does not."""
    made = unserved(limits=cm.Limits(channels=10, process_share=1, user_share=1))
    made.knock(10)
    oldest, second, *_ = channels = made.channels.all()
    made.channels.move(oldest, Event.BEGIN)
    for used, channel in enumerate(channels):
        made.server._turn.ring.slots[channel.slot].used = used
    assert made.channels.spare(oldest.peer) is second
    assert oldest.state is State.RECEIVING


def test_what_the_table_of_states_does_not_have_is_refused(unserved):
    """A fault of ours is found where it is made."""
    made = unserved()
    made.knock(1)
    [channel] = made.channels.all()
    with pytest.raises(RuntimeError, match="IDLE cannot SENT"):
        made.channels.move(channel, Event.SENT)


def test_a_slot_is_used_again_and_an_old_event_is_nobodys(unserved):
    """Generations tell a channel from the one that had its slot before."""
    made = unserved()
    made.knock(1)
    [first] = made.channels.all()
    generation = made.server._turn.ring.slots[first.slot].generation
    made.server._endings.forget(first)
    made.knock(1)
    [second] = made.channels.all()
    assert second.slot == first.slot
    assert made.server._turn.ring.slots[second.slot].generation > generation


def test_a_listening_socket_is_no_channel_that_lives(unserved):
    """It is an AF_UNIX SEQPACKET socket like any channel, and says nothing."""
    made = unserved()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(b"")
        listener.listen()
        by_hand.at_door(made.capability, by_hand._wire.KNOCK_RECORD, [listener.fileno()])
        made.server._doorkeeper.open()
    assert len(made.channels) <= 1
