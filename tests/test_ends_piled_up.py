"""Channels that have ended, and whose closing waits for somebody: what one user piles up leaves room for all others.

The server is a process of its own with a small descriptor table, its clients are processes of several users.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

import by_hand
import parts_by_hand
from capmarshal._protocol import wire
from lingering_socket import make_lingering
from ordinary_user import become_ordinary
from patience import PATIENCE, until
from served import send_away

pytestmark = [
    pytest.mark.usefixtures("quiet_log"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users"),
]

TABLE = 256
# One process may occupy two of the reaper's threads, and four of them all that their user may.
SLOW, OCCUPYING, PROCESSES = 2, 4, 8
# Of each process at a time: together as many as their user may have.
CHANNELS = 18
ROUNDS = 3
# Descriptors in an honest call.
MANY = TABLE // 8


@pytest.fixture
def served(fork):
    """(process, capability) of the server."""
    with by_hand.server_process(fork, ordinary=True, table=TABLE) as (child, capability):
        yield child.pid, capability


def occupy(capability, number):
    """A channel that ends as soon as it is there, and takes as long to close as what lies in its queue."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.send(b"nonsense")
        by_hand.send(near, b"x", [number])
        os.close(number)
        by_hand.at_door(capability, wire.KNOCK_RECORD, [far.fileno()])


def admitted(capability):
    """A channel that has carried a call; None where the knock was refused."""
    near = by_hand.knock(capability)
    with contextlib.suppress(ConnectionError):
        if parts_by_hand.lives(near, capability):
            return near
    near.close()
    return None


def is_served(capability):
    """Whether whoever this is can knock, and is answered."""
    near = admitted(capability)
    if near is not None:
        near.close()
    return near is not None


class Attacker:
    """One of several processes of one user, which the test's own process gives the number of."""

    def __init__(self, hostile, capability):
        self._capability, self._user = capability, os.getpid()
        self._slow, self._nears = [], []
        self.client = hostile(self._prepare, self._begin, *[self._open, self._end] * ROUNDS)

    def _prepare(self):
        self._slow = [make_lingering(int(4 * PATIENCE)) for _ in range(SLOW)]
        # No module can be imported after that.
        become_ordinary(self._user)

    def _begin(self):
        for number, _ in self._slow:
            occupy(self._capability, number)

    def _open(self):
        made = [admitted(self._capability) for _ in range(CHANNELS)]
        self._nears = [near for near in made if near is not None]

    def _end(self):
        """Ends its channels, with a descriptor in the queue of each."""
        with open("/dev/null", "rb") as null:
            for near in self._nears:
                # The server may have given it up for somebody else.
                with contextlib.suppress(ConnectionError):
                    near.send(b"nonsense")
                    by_hand.send(near, b"x", [null.fileno()])
                near.close()


def attack(hostile, capability, count):
    """So many of them, which have begun."""
    # So that the server's copies of what takes long to close are the last.
    attackers = [Attacker(hostile, capability) for _ in range(count)]
    with by_hand.busy(capability):
        for attacker in attackers:
            attacker.client.act()
    return attackers


class Sibling:
    """An honest process of their user."""

    def __init__(self, hostile, capability, *acts):
        self._capability = capability
        self.client = hostile(self._begin, *(getattr(self, act) for act in acts))

    def _begin(self):
        become_ordinary(os.getppid())
        self._mine = admitted(self._capability)

    def call(self):
        """Calls on the channel that it has had since before."""
        assert parts_by_hand.lives(self._mine, self._capability)

    def be_refused(self):
        """Knocks with a call that brings a descriptor: it hears at once that this was not read."""
        with by_hand.knock(self._capability) as near, open("/dev/null", "rb") as null:
            with contextlib.suppress(BrokenPipeError):
                by_hand.send(near, by_hand.call(self._capability, descriptors=1), [null.fileno()])
            try:
                record, _ = by_hand.answer(near)
            except ConnectionResetError:
                return
            assert record is None or isinstance(record, wire.Gone)

    def come_and_go(self):
        """Has more channels than the server has room for, one after the other."""
        for _ in range(2 * TABLE):
            # Some may have to wait until the last ones are closed.
            until(lambda: is_served(self._capability))


def open_in(process):
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def test_what_one_user_leaves_to_be_closed_keeps_nobody_else_out(served, fork, hostile):
    """Eight processes occupy the reaper's threads and end channels, whose closing then waits: as often as they can.

    Others are served meanwhile, on channels that they have and on new ones, and their own user's on those that they
    have.  In the end all is closed.
    """
    server, capability = served
    with by_hand.knock(capability) as mine:
        assert parts_by_hand.lives(mine, capability)
        with by_hand.busy(capability):
            pass
        before = open_in(server)
        sibling = Sibling(hostile, capability, *["call"] * ROUNDS, "be_refused")
        attackers = attack(hostile, capability, PROCESSES)
        for _ in range(ROUNDS):
            for attacker in attackers:
                attacker.client.act()
            assert parts_by_hand.lives(mine, capability)
            assert is_served(capability)
            with by_hand.busy(capability):
                for attacker in attackers:
                    attacker.client.act()
            assert parts_by_hand.lives(mine, capability)
            assert fork(lambda: is_served(capability), ordinary=True).result()
            sibling.client.act()
            # It is the attack that it is said to be, and leaves room.
            assert TABLE // 2 < open_in(server) < TABLE * 7 // 8
        sibling.client.act()
        for attacker in attackers:
            attacker.client.child.kill()
        sibling.client.child.kill()
        until(lambda: open_in(server) <= before)


def test_who_occupies_the_reapers_threads_keeps_nothing_of_its_users_other_processes_open(served, hostile):
    """Their channels are closed when they end: no descriptor lies in the queue of any."""
    server, capability = served
    attackers = attack(hostile, capability, OCCUPYING)
    sibling = Sibling(hostile, capability, "come_and_go")
    sibling.client.act()
    for attacker in attackers:
        attacker.client.child.kill()
    assert open_in(server) < TABLE


class Sender:
    """One of several processes of one user, each with one call whose arguments take long to close."""

    def __init__(self, hostile, capability):
        self._capability, self._user = capability, os.getpid()
        self.client = hostile(self._prepare, self._send)

    def _prepare(self):
        self._slow, self._peer = make_lingering(int(4 * PATIENCE))
        become_ordinary(self._user)
        self._near = admitted(self._capability)

    def _send(self):
        send_away(self._near, self._capability, self._slow, count=TABLE // 4)


def test_what_one_user_sends_in_calls_leaves_room_for_the_descriptors_of_others(served, hostile):
    """Eight processes of one user make one call each: when two have come, more of theirs are not read."""
    server, capability = served
    with by_hand.knock(capability) as mine, by_hand.pipe() as (reader, _):
        assert parts_by_hand.lives(mine, capability)
        with by_hand.busy(capability):
            pass
        before = open_in(server)
        senders = [Sender(hostile, capability) for _ in range(PROCESSES)]
        with by_hand.busy(capability):
            for sender in senders:
                sender.client.act()
        for _ in range(ROUNDS):
            payload, entries = (
                b"\x91\xdc" + MANY.to_bytes(2, "big") + bytes(range(MANY)),
                [(n, bytes(16)) for n in range(MANY)],
            )
            by_hand.send(mine, by_hand.call(capability, b"count", payload, entries, MANY), [reader.fileno()] * MANY)
            record, _ = by_hand.answer(mine)
            assert isinstance(record, wire.Reply), record
        assert TABLE // 4 < open_in(server) < TABLE * 7 // 8
        for sender in senders:
            sender.client.child.kill()
        until(lambda: open_in(server) <= before)
