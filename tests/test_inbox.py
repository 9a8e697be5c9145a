"""Room to receive into: what is in it has one owner until it is taken, also where nobody takes it."""

import gc
import os
import signal
import socket
import sys
import threading
import time

import pytest

from capmarshal import Message, testing
from capmarshal._descriptors import descriptor as _descriptor
from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
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
        interrupting = Interrupting(at, KeyboardInterrupt, [_inbox.__file__, _descriptor.__file__])
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


def _received(count, first):
    inbox = Inbox(16)
    for place in range(count):
        inbox.struct.descriptors[place] = first + place
    inbox.struct.count = count
    return inbox.struct, inbox.steal_each


def _listed(count, first):
    whole = DescriptorList.with_room(count)
    whole.struct.numbers[0:count] = range(first, first + count)
    whole.struct.count = count
    return whole.struct, lambda owners: owners.extend(whole.steal_all())


@pytest.mark.parametrize("make", [_received, _listed])
def test_two_signals_at_once_leave_one_owner_of_each(fork, make):
    """The second was handled while the first was dealt with: some numbers had two owners, and each would close them."""

    class Interrupt(BaseException):
        pass

    # Of no open files: who should own them twice closes nothing else.
    count, first, hits = 200, 1 << 20, 20

    def interrupted_often():
        listening, ended = [], []

        def interrupt(_number, _frame):
            if listening:
                raise Interrupt

        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, interrupt)
        main = threading.main_thread().ident

        def send():
            while not ended:
                for number in (signal.SIGUSR1, signal.SIGUSR2):
                    signal.pthread_kill(main, number)

        def once():
            struct, move = make(count, first)
            owners, frames = [], []
            try:
                try:
                    listening.append(1)
                    move(owners)
                finally:
                    listening.clear()
            except Interrupt as error:
                frames.append(error.__traceback__)
            listening.clear()
            while frames and frames[-1] is not None:
                owners += frames[-1].tb_frame.f_locals.get("stolen", ())
                frames.append(frames[-1].tb_next)
            owned = sum(getattr(owner, "_number", -1) >= 0 for owner in owners)
            twice = owned > 0 and struct.count > 0
            for owner in owners:
                owner._number = -1
            struct.count = 0
            return bool(frames), twice

        sender = threading.Thread(target=send)
        sys.setswitchinterval(1e-6)
        sender.start()
        seen, deadline = [], time.monotonic() + PATIENCE / 2
        while len(seen) < hits and time.monotonic() < deadline:
            was_hit, twice = once()
            seen += [twice] * was_hit
        ended.append(1)
        sender.join()
        return len(seen), any(seen)

    assert fork(interrupted_often).result() == (hits, False)


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
    before, seen = testing.open_descriptors(), []

    def note(_frame, event, _argument):
        if event == "c_return":
            seen.append({number: what for number, what in testing.open_descriptors().items() if number not in before})

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
