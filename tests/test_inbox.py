"""Room to receive into: what is in it has one owner until it is taken, also where nobody takes it."""

import gc
import os
import socket
import sys

import pytest

import left_behind
from capmarshal import Message
from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import reaper
from capmarshal._descriptors.inbox import Inbox, borrow, give_back, why_lost
from capmarshal._descriptors.private import Private
from capmarshal._kernel.native import NOW, lib
from interrupting import Interrupting
from parts_by_hand import little_room
from patience import PATIENCE
from slow_closing import is_open, pipe_end


def received(count):
    """An inbox with so many descriptors that were received."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, pipe_end() as one:
        Message(b"x", [one] * count).send(near)
        inbox = Inbox(16)
        assert lib.cm_receive(far.fileno(), inbox.struct, NOW) == 1
        return inbox


def test_what_is_stolen_is_no_more_there():
    """And the inbox can be used again."""
    inbox = received(3)
    stolen = inbox.steal()
    numbers = stolen.numbers()
    assert len(numbers) == 3
    assert len(inbox.steal()) == 0
    del inbox
    gc.collect()
    assert all(map(is_open, numbers))
    stolen.close()


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_leaves_owners_of_all_or_of_nothing(count):
    """And no half of one, of which not even that could be asked."""
    at, interrupting = 0, None
    while interrupting is None or interrupting.where:
        inbox, owners = received(count), []
        interrupting = Interrupting(at, KeyboardInterrupt, [_inbox.__file__])
        try:
            with interrupting:
                inbox.steal_each(owners)
        except KeyboardInterrupt:
            pass
        open_ones = [owner for owner in owners if not owner.closed]
        assert len(open_ones) + inbox.struct.count == count
        for owner in open_ones:
            owner.close()
        inbox.close()
        at += 1
    assert at > 2


def test_one_that_is_forgotten_closes_what_is_in_it_and_waits_for_nothing(lingering, drain):
    """Ctrl-C came between receiving and taking: a finalizer runs in any thread, and a close may take a minute."""
    number, peer = lingering(60)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        Message(b"x", [number]).send(near)
        os.close(number)
        inbox = Inbox(16)
        assert lib.cm_receive(far.fileno(), inbox.struct, NOW) == 1
    del inbox
    gc.collect()
    assert not reaper.wait(0.1), "the close did not block, so this test shows nothing"
    drain(peer)
    assert reaper.wait(PATIENCE)


def test_a_received_descriptor_of_our_own_is_no_standard_stream(fork):
    """A channel gets the lowest number that is free, and is moved above those."""

    def child():
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inbox, owner = Inbox(16), Private(-1)
        with pipe_end() as one:
            Message(b"x", [one]).send(near)
        os.close(0)
        assert lib.cm_receive(far.fileno(), inbox.struct, NOW) == 1
        assert inbox.struct.descriptors[0] == 0
        inbox.steal_into(owner)
        return owner.number >= 3, is_open(0), is_open(owner.number)

    assert fork(child).result() == (True, False, True)


def test_one_that_was_given_back_is_borrowed_again():
    """And another one where a signal handler wants one too."""
    first = borrow()
    second = borrow()
    assert first is not second
    give_back(first)
    assert borrow() is first
    give_back(first)
    give_back(second)


def test_to_ask_why_descriptors_were_lost_copies_none():
    """A child that another thread forks just then keeps what it finds open: an eventfd, and nobody's channel."""
    before, seen = left_behind.listing(), []

    def note(_frame, event, _argument):
        if event == "c_return":
            seen.append({number: what for number, what in left_behind.listing().items() if number not in before})

    sys.setprofile(note)
    try:
        words = why_lost()
    finally:
        sys.setprofile(None)
    assert "had no room at that moment" in words
    assert {what for each in seen for what in each.values()} == {"anon_inode:[eventfd]"}
    assert not seen[-1]
    with little_room(0):
        assert "RLIMIT_NOFILE" in why_lost()
