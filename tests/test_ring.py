"""Whose turn it is (csrc/cm_ring.c): turns are dealt by peer, against a model in Python."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from capmarshal._kernel.native import ffi, lib

SLOTS, PEERS = 12, 4
slots = st.integers(1, SLOTS - 1)


class Ring(RuleBasedStateMachine):
    """Slots go in and out in any order; each belongs to one of three peers."""

    def __init__(self):
        super().__init__()
        self.ring = ffi.new("struct cm_ring *")
        self.slots, self.peers = ffi.new("struct cm_slot[]", SLOTS), ffi.new("struct cm_peer[]", PEERS)
        self.share()
        for slot in range(1, SLOTS):
            self.slots[slot].peer = 1 + slot % (PEERS - 1)
        self.begin()

    def begin(self):
        """Nothing is anywhere, nobody is full."""
        self.queues = {peer: deque() for peer in range(1, PEERS)}
        self.deaf = {peer: deque() for peer in range(1, PEERS)}
        self.aside = {peer: deque() for peer in range(1, PEERS)}
        self.order, self.waiting, self.full = deque(), deque(), set()
        self.served = self.admitted = 0

    def share(self):
        self.ring.slots, self.ring.n_slots, self.ring.peers, self.ring.n_peers = self.slots, SLOTS, self.peers, PEERS

    def lists(self, slot):
        peer = self.slots[slot].peer
        return peer, self.queues[peer], self.deaf[peer], self.aside[peer]

    def is_nowhere(self, slot):
        return all(slot not in slots for slots in self.lists(slot)[1:])

    @rule(slot=slots)
    def enqueue(self, slot):
        if self.is_nowhere(slot):
            lib.cm_enqueue(self.ring, slot)
            self.has_come(slot)

    def has_come(self, slot):
        peer, queue, _, _ = self.lists(slot)
        queue.append(slot)
        if peer not in self.order and peer != self.served:
            self.order.append(peer)

    @rule(slot=slots)
    def deafen(self, slot):
        if self.is_nowhere(slot):
            lib.cm_deafen(self.ring, slot)
            self.lists(slot)[2].append(slot)

    @rule(slot=slots)
    def set_aside(self, slot):
        if self.is_nowhere(slot):
            peer, _, _, aside = self.lists(slot)
            lib.cm_set_aside(self.ring, slot)
            aside.append(slot)
            if peer not in self.waiting and peer not in self.full:
                self.waiting.append(peer)

    @rule(peer=st.integers(0, PEERS - 1), full=st.sampled_from([0, 1, 2, -1]))
    def fill(self, peer, full):
        lib.cm_fill(self.ring, peer, full)
        (self.full.add if full else self.full.discard)(peer)
        if full and peer in self.waiting:
            self.waiting.remove(peer)
        elif not full and peer and self.aside[peer] and peer not in self.waiting:
            self.waiting.append(peer)

    @rule()
    def take_in(self):
        if self.waiting and not self.admitted:
            lib.cm_take_in(self.ring)
            peer = self.waiting.popleft()
            slot = self.aside[peer].popleft()
            # Each peer in its turn: behind all others, if it has more.
            if self.aside[peer]:
                self.waiting.append(peer)
            self.admitted = slot
            self.has_come(slot)

    @rule(slot=slots)
    def end_admission(self, slot):
        assert lib.cm_end_admission(self.ring, slot) == (slot == self.admitted)
        if slot == self.admitted:
            self.admitted = 0

    @rule(slot=slots)
    def unlist(self, slot):
        peer, queue, deaf, aside = self.lists(slot)
        lib.cm_unlist(self.ring, slot)
        for slots_there in (queue, deaf, aside):
            if slot in slots_there:
                slots_there.remove(slot)
        if not queue and peer in self.order:
            self.order.remove(peer)
        if not aside and peer in self.waiting:
            self.waiting.remove(peer)

    @rule()
    def take_a_turn(self):
        slot = lib.cm_next(self.ring)
        # Behind all that have come since.
        if self.served and self.queues[self.served]:
            self.order.append(self.served)
        self.served = self.order.popleft() if self.order else 0
        assert slot == (self.queues[self.served].popleft() if self.served else 0)

    @precondition(lambda self: any(self.queues.values()) and any(self.aside.values()))
    @rule()
    def forget(self):
        lib.cm_ring_forget(self.ring)
        assert (self.ring.n_slots, self.ring.n_peers) == (0, 0)
        self.share()
        self.begin()

    @invariant()
    def who_is_next_agrees(self):
        assert self.ring.first == (self.order[0] if self.order else 0)
        assert self.ring.waiting == (self.waiting[0] if self.waiting else 0)
        assert self.ring.admitted == self.admitted

    @invariant()
    def who_is_full_agrees(self):
        fulls = [self.ring.full, *(self.peers[peer].full for peer in range(1, PEERS))]
        assert fulls == [int(peer in self.full) for peer in range(PEERS)]

    @invariant()
    def the_bounds_agree(self):
        """Where there are none, no call waits for room: C does not look for one then."""
        assert self.ring.bounds == len(self.waiting) + len(self.full) + bool(self.admitted)
        assert self.ring.bounds or not any(self.aside.values())

    @invariant()
    def whether_anyone_waits_agrees(self):
        assert bool(lib.cm_anyone(self.ring)) == any(self.queues.values())

    @invariant()
    def the_places_agree(self):
        for slot in range(1, SLOTS):
            places = zip((lib.CM_QUEUE, lib.CM_DEAF, lib.CM_ASIDE), self.lists(slot)[1:], strict=True)
            place = next((place for place, there in places if slot in there), lib.CM_NOWHERE)
            assert self.slots[slot].place == place


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=200, stateful_step_count=60)
