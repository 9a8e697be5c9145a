"""The capability space through random lives of capabilities: what it holds is what the program refers to."""

import fcntl
import gc
import socket

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import capmarshal as cm
import doors_by_hand
from capmarshal._capabilities.capability import badge_of, key_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._kernel.native import lib


class ModelDoor:
    """What the model knows of one door.

    Attributes:
        socket: a client end of it, the test's own, from which more are duplicated.
        server: its server end, or entrypoint; None once it is closed.
        managed: of an entrypoint, the objects by badge.
    """

    def __init__(self, sock, server):
        self.socket, self.server, self.managed = sock, server, {}
        self.cookie = doors_by_hand.cookie_of(sock)

    @property
    def own(self):
        return isinstance(self.server, cm.Entrypoint)

    def descriptors(self, used):
        """How many descriptors it should cost."""
        if self.own:
            return 5
        return 1 + (self.server is not None) + used


BADGES = [bytes([number]) * 16 for number in (1, 2, 255)]


places = st.integers(0, 99)


class SpaceMachine(RuleBasedStateMachine):
    """Random lives of capabilities, against a model that only counts.

    No bundles: hypothesis would hold what the program has dropped.
    """

    def __init__(self):
        super().__init__()
        self.base = doors_by_hand.open_now()
        self.doors = []
        # What the program refers to: a list, since one capability may be held twice.
        self.held = []

    def _live(self, key):
        return next((held for held in self.held if key_of(held) == key and not held.closed), None)

    def _hold(self, capability):
        known = self._live(key_of(capability))
        assert known is None or known is capability
        assert not capability.closed
        self.held.append(capability)

    def _receive(self, door, badge):
        if door.own and badge not in door.managed:
            with pytest.raises(cm.StaleCapability):
                doors_by_hand.receive(door.socket, badge)
        else:
            self._hold(doors_by_hand.receive(door.socket, badge))

    def _door(self, place):
        return self.doors[place % len(self.doors)]

    @precondition(lambda self: len(self.doors) < 6)
    @rule()
    def another_process_has_a_door(self):
        server, client = doors_by_hand.pair()
        self.doors.append(ModelDoor(client, server))

    @precondition(lambda self: len(self.doors) < 6)
    @rule()
    def make_an_entrypoint(self):
        entrypoint = cm.Entrypoint("own")
        client = socket.socket(fileno=fcntl.fcntl(entrypoint._door.number, fcntl.F_DUPFD_CLOEXEC, 0))
        self.doors.append(ModelDoor(client, entrypoint))

    @precondition(lambda self: self.doors)
    @rule(place=places)
    def manage(self, place):
        door = self._door(place)
        if door.own:
            target = doors_by_hand.ThingServer()
            capability = door.server.manage(target)
            assert capability.local is target
            assert badge_of(capability) not in door.managed
            door.managed[badge_of(capability)] = target
            self._hold(capability)

    @precondition(lambda self: self.doors)
    @rule(place=places, choice=places)
    def receive(self, place, choice):
        door = self._door(place)
        badges = BADGES + list(door.managed)
        self._receive(door, badges[choice % len(badges)])

    @precondition(lambda self: self.held)
    @rule(place=places)
    def receive_again(self, place):
        cookie, badge = key_of(self.held[place % len(self.held)])
        self._receive(next(door for door in self.doors if door.cookie == cookie), badge)

    @precondition(lambda self: self.doors)
    @rule(place=places)
    def dissolve_one(self, place):
        door = self._door(place)
        if door.own and door.managed:
            badge, target = door.managed.popitem()
            door.server.dissolve(target)
            held = self._live((door.cookie, badge))
            assert held is None or held.local is None

    @precondition(lambda self: self.held)
    @rule(place=places)
    def drop_a_reference(self, place):
        del self.held[place % len(self.held)]

    @precondition(lambda self: self.held)
    @rule(place=places)
    def close_a_capability(self, place):
        capability = self.held[place % len(self.held)]
        capability.close()
        assert capability.closed
        with pytest.raises(cm.Closed):
            open_door_of(capability)

    @precondition(lambda self: self.doors)
    @rule(place=places)
    def the_server_ends(self, place):
        door = self._door(place)
        if door.server is not None:
            door.server.close()
            door.server = None

    @invariant()
    def one_descriptor_for_each_door_that_is_used(self):
        used = {key_of(capability)[0] for capability in self.held if not capability.closed}
        expected = self.base + sum(door.descriptors(door.cookie in used) for door in self.doors)
        if doors_by_hand.open_now() != expected:
            gc.collect()
        assert doors_by_hand.open_now() == expected
        mine = {door.cookie for door in self.doors}
        held = [door for door in space.doors() if door.key in mine]
        assert sorted(door.key for door in held) == sorted(used | {door.cookie for door in self.doors if door.own})
        assert [lib.cm_cookie(door.number) for door in held] == [door.key for door in held]

    @invariant()
    def one_object_for_each_capability(self):
        for one in self.held:
            for other in self.held:
                assert (one == other) == (key_of(one) == key_of(other))
                assert one != other or hash(one) == hash(other)
                assert one is other or one != other or one.closed or other.closed

    @invariant()
    def nothing_is_remembered_of_the_dead(self):
        # What has died is taken out of the tables by the next that is entered.
        space._bury()
        mine = {door.cookie for door in self.doors}
        assert {key for key in space._capabilities if key[0] in mine} <= {key_of(held) for held in self.held}

    def teardown(self):
        self.held.clear()
        for door in self.doors:
            if door.server is not None:
                door.server.close()
                door.server = None
            door.socket.close()
        if doors_by_hand.open_now() != self.base:
            gc.collect()
        assert doors_by_hand.open_now() == self.base


SpaceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestSpace = SpaceMachine.TestCase
