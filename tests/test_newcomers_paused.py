"""A user whose knocks bring what takes long to close: they wait, and nobody else's at another door does."""

from __future__ import annotations

import os

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand
import services
from lingering_socket import make_lingering
from ordinary_user import become_ordinary
from patience import PATIENCE, until
from served import knock_in_vain, send_away, serving

pytestmark = [
    pytest.mark.usefixtures("quiet_log"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users"),
]

CLOSING = 16
# Knocks: less than a door's queue takes.
KNOCKS = 100


class Attacker:
    """A process of an ordinary user that holds one door."""

    def __init__(self, hostile, capability):
        self._capability = capability
        self.client = hostile(self._prepare, self._knock)

    def _prepare(self):
        # As many as one process may occupy threads of the reaper with.
        self._slow = [make_lingering(int(4 * PATIENCE)) for _ in range(2)]
        become_ordinary()

    def _knock(self):
        for number in [number for number, _ in self._slow] + [os.open("/dev/null", os.O_RDONLY) for _ in range(KNOCKS)]:
            knock_in_vain(self._capability, number)


def be_served(capability):
    """Knocks, and is answered."""
    with by_hand.knock(capability) as near:
        assert parts_by_hand.lives(near, capability)


def closings(served):
    return served.entrypoint._service._server._closings


# All processes are there before anything waits to be closed: one that is forked then has it open, too, for a moment.


def test_knocks_of_one_user_that_take_long_to_close_pause_no_other_door(hostile, place):
    """Neither the entrypoint's own, nor another grant's, nor a socket that it listens at; and they go on waiting."""
    with serving(limits=cm.Limits(closing=CLOSING)) as served:
        theirs, mine = (served.entrypoint.grant(by_hand.Worker()) for _ in range(2))
        served.entrypoint.listen(place, served.capability, mode=0o666)
        attacker = Attacker(hostile, theirs)
        honest = hostile(
            become_ordinary,
            lambda: be_served(served.capability),
            lambda: be_served(mine),
            lambda: services.double(place),
        )
        with by_hand.busy(served.capability):
            attacker.client.act()
        until(lambda: closings(served).full)
        for _ in range(3):
            honest.act()
        # It is the attack that it is said to be: the door, which is tried again and again, has not let all of it in.
        until(lambda: closings(served).full)
        assert closings(served)._waiting < KNOCKS // 2
        attacker.client.child.kill()
        until(lambda: not closings(served)._waiting)


def test_calls_of_one_user_that_take_long_to_close_pause_no_door(hostile):
    """Not even the one through which they come, where another of its user's processes knocks all the time."""
    user = os.getpid()
    with serving(limits=cm.Limits(closing=CLOSING)) as served:
        kept = []

        def prepare():
            kept.extend(make_lingering(int(4 * PATIENCE)))
            become_ordinary(user)
            kept.append(by_hand.knock(served.capability))

        def send():
            number, _, near = kept
            send_away(near, served.capability, number, count=99)

        def knock():
            for _ in range(2 * CLOSING):
                by_hand.knock(served.capability).close()

        sender = hostile(prepare, send)
        sibling = hostile(lambda: become_ordinary(user), knock)
        honest = hostile(become_ordinary, lambda: be_served(served.capability))
        with by_hand.busy(served.capability):
            sender.act()
        until(lambda: closings(served).full)
        sibling.act()
        honest.act()
        assert closings(served).full
        sender.child.kill()
        until(lambda: not closings(served)._waiting)
