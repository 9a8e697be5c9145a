"""Ends of channels that are kept after they have ended, for what was not received: no longer than there is a client.

The server is an entrypoint of the test's own; its clients are forked processes that speak by hand.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from capmarshal._server import unread
from patience import PATIENCE, until
from served import Served

pytestmark = pytest.mark.usefixtures("quiet_log")

SO_PASSPIDFD = 76
MANY = 12


class Watched(Served):
    """An entrypoint, and what it has of its clients."""

    def tell_no_pidfds(self):
        """As on Linux before 5.3."""
        server = self.entrypoint._service._server
        server._knocks._peers._open = lambda _peer: None
        with socket.socket(fileno=os.dup(server._doorkeeper.door.number)) as door:
            door.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 0)

    def warm_up(self):
        """Has this process's own channel made; what is open then."""
        with by_hand.busy(self.capability):
            pass
        until(lambda: len(self.channels) == 1)
        return ends_and_pidfds()

    def kept(self):
        """How many descriptors are counted as unread, by all accounts alike."""
        count = self.channels.unread.count
        # This process's user is that of its clients.
        assert count == self.channels.all()[0].peer.user.unread
        return count

    def is_as_it_was(self, before):
        return not self.kept() and not self.channels.unread.any_ended and ends_and_pidfds() == before


@contextlib.contextmanager
def serving():
    made = Watched()
    with made.entrypoint:
        yield made
        # Whatever a test did: the next client is served.
        with cm.timeout(PATIENCE):
            assert made.capability.cast(by_hand.Work).double(4) == 8


def ends_and_pidfds():
    """How many sockets and pidfds this process has open."""
    count = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(one.readlink()).startswith(("socket:", "pidfd:", "anon_inode:[pidfd]"))
    return count


class Attacker:
    """A process with channels on which answers wait that bring descriptors, and what it does on them then."""

    def __init__(self, hostile, capability, then, count=MANY):
        self.nears = []
        self.client = hostile(lambda: self._begin(capability, count), lambda: then(self.nears))

    def _begin(self, capability, count):
        for _ in range(count):
            near = by_hand.knock(capability)
            near.send(by_hand.call(capability, b"pipes", b"\x91\x01"))
            assert select.select([near], [], [], PATIENCE)[0]
            self.nears.append(near)

    def act_unseen(self, served):
        """Acts while the server is busy: it finds all of that at once."""
        with by_hand.busy(served.capability):
            self.client.act()


def send_each(records):
    """On each channel something that ends it, and then its own end, and its neighbour's, behind other records."""

    def act(nears):
        for number, near in enumerate(nears):
            near.send(b"junk")
            for record in records:
                near.send(record)
            by_hand.send(near, b"more", [near.fileno(), nears[number - 1].fileno()])

    return act


def send_junk(nears):
    for near in nears:
        near.send(b"junk")


behind = pytest.mark.parametrize("records", [[], [b"", b"x"]], ids=["at once", "behind others"])


@behind
def test_who_sends_its_own_ends_and_dies_leaves_nothing(hostile, records):
    """What lies in their own queues keeps them: the kernel cannot tell that nobody has them any more."""
    with serving() as served:
        before = served.warm_up()
        attackers = [Attacker(hostile, served.capability, send_each(records)) for _ in range(3)]
        for attacker in attackers:
            attacker.act_unseen(served)
        until(lambda: len(served.channels) == 1)
        assert served.kept() == 3 * 2 * MANY
        for attacker in attackers:
            attacker.client.child.kill()
        until(lambda: served.is_as_it_was(before))


@behind
def test_also_where_the_kernel_does_not_tell_who_has_ended(hostile, records):
    """What they have sent is taken and closed, without anybody's end being told."""
    with serving() as served:
        served.tell_no_pidfds()
        before = served.warm_up()
        attacker = Attacker(hostile, served.capability, send_each(records))
        attacker.act_unseen(served)
        until(lambda: len(served.channels) == 1)
        assert served.kept() == 2 * MANY
        attacker.client.child.kill()
        until(lambda: served.is_as_it_was(before))


def test_the_end_of_a_process_is_noticed_after_its_channels(hostile):
    """Whoever holds copies of its ends, as this process does here."""
    with serving() as served:
        before = served.warm_up()
        ours, theirs = socket.socketpair()

        def hand_on(nears):
            send_junk(nears)
            socket.send_fds(theirs, [b"x"], [near.fileno() for near in nears])

        with ours, theirs:
            attacker = Attacker(hostile, served.capability, hand_on)
            attacker.act_unseen(served)
            _, copies, _, _ = socket.recv_fds(ours, 1, MANY)
            until(lambda: len(served.channels) == 1)
            assert served.kept() == 2 * MANY
            attacker.client.child.kill()
            until(lambda: not served.kept() and not served.channels.unread.any_ended)
            for copy in copies:
                os.close(copy)
        until(lambda: served.is_as_it_was(before))


def test_nothing_is_kept_for_good_where_no_end_is_told(hostile, monkeypatch):
    """A client that lives on and never reads: when the time is up, its ends are closed."""
    with serving() as served:
        served.tell_no_pidfds()
        before = served.warm_up()
        monkeypatch.setattr(unread, "_KEPT", 0)
        attacker = Attacker(hostile, served.capability, send_junk)
        attacker.act_unseen(served)
        until(lambda: len(served.channels) == 1)
        until(lambda: not served.channels.unread.any_ended)
        until(lambda: served.is_as_it_was(before))


def test_what_a_process_has_not_received_is_counted_as_long_as_it_lives(hostile, monkeypatch):
    """Where its end is told, no time is up before."""
    with serving() as served:
        served.warm_up()
        monkeypatch.setattr(unread, "_KEPT", 0)
        attacker = Attacker(hostile, served.capability, send_junk)
        attacker.act_unseen(served)
        until(lambda: len(served.channels) == 1)
        kept = served.channels.unread
        overdue, looked = kept.close_overdue, []
        monkeypatch.setattr(kept, "close_overdue", lambda: (overdue(), looked.append(time.monotonic())))
        until(lambda: looked)
        assert served.kept() == 2 * MANY
        attacker.client.child.kill()
        until(lambda: not kept.any_ended)
