"""Whose turn it is (csrc/cm_ring.c): turns are dealt by peer, against a model in Python."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from capmarshal._kernel.native import ffi, lib

SLOTS, PEERS = 12, 4
slots = st.integers(1, SLOTS - 1)


class Ring(RuleBasedStateMachine):
    """Slots go in and out in any order; each belongs to one of three peers."""

    def __init__(self):
        super().__init__()
        self.ring = ffi.new("struct cm_ring *")
        self.slots, self.peers = ffi.new("struct cm_slot[]", SLOTS), ffi.new("struct cm_peer[]", PEERS)
        self.ring.slots, self.ring.n_slots, self.ring.peers, self.ring.n_peers = self.slots, SLOTS, self.peers, PEERS
        for slot in range(1, SLOTS):
            self.slots[slot].peer = 1 + slot % (PEERS - 1)
        self.queues = {peer: deque() for peer in range(1, PEERS)}
        self.deaf = {peer: deque() for peer in range(1, PEERS)}
        self.order = deque()
        self.served = 0

    def lists(self, slot):
        peer = self.slots[slot].peer
        return peer, self.queues[peer], self.deaf[peer]

    @rule(slot=slots)
    def enqueue(self, slot):
        peer, queue, deaf = self.lists(slot)
        if slot not in queue and slot not in deaf:
            lib.cm_enqueue(self.ring, slot)
            queue.append(slot)
            if peer not in self.order and peer != self.served:
                self.order.append(peer)

    @rule(slot=slots)
    def deafen(self, slot):
        _, queue, deaf = self.lists(slot)
        if slot not in queue and slot not in deaf:
            lib.cm_deafen(self.ring, slot)
            deaf.append(slot)

    @rule(slot=slots)
    def unlist(self, slot):
        peer, queue, deaf = self.lists(slot)
        lib.cm_unlist(self.ring, slot)
        for waiting in (queue, deaf):
            if slot in waiting:
                waiting.remove(slot)
        if not queue and peer in self.order:
            self.order.remove(peer)

    @rule()
    def take_a_turn(self):
        slot = lib.cm_next(self.ring)
        # Behind all that have come since.
        if self.served and self.queues[self.served]:
            self.order.append(self.served)
        self.served = self.order.popleft() if self.order else 0
        assert slot == (self.queues[self.served].popleft() if self.served else 0)

    @invariant()
    def who_is_next_agrees(self):
        assert self.ring.first == (self.order[0] if self.order else 0)

    @invariant()
    def whether_anyone_waits_agrees(self):
        assert bool(lib.cm_anyone(self.ring)) == any(self.queues.values())

    @invariant()
    def the_places_agree(self):
        for slot in range(1, SLOTS):
            _, queue, deaf = self.lists(slot)
            place = lib.CM_QUEUE if slot in queue else lib.CM_DEAF if slot in deaf else lib.CM_NOWHERE
            assert self.slots[slot].place == place


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=200, stateful_step_count=60)
