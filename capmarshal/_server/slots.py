"""Where C has a server's channels, and the peers that it deals turns to: memory that both see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._kernel.errors import WATCHING, check
from capmarshal._kernel.native import ffi, lib
from capmarshal._protocol.wire import BADGE_SIZE, NO_SECRET

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.native import CData

_FIRST_ROOM = 16


class _Table:
    """An array of C structs that grows, and the places in it that are free.  Place 0 stays empty: it is none."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.array: CData = ffi.new(f"{kind}[]", _FIRST_ROOM)
        self.room = _FIRST_ROOM
        self._former: list[CData] = []
        self._free = list(range(_FIRST_ROOM - 1, 0, -1))

    def take(self) -> int:
        """A free place."""
        if not self._free:
            room = self.room
            larger = ffi.new(f"{self._kind}[]", 2 * room)
            ffi.memmove(larger, self.array, ffi.sizeof(self.array))
            # Ctrl-C may come before C knows of the new one.
            self._former.append(self.array)
            self.array, self.room = larger, 2 * room
            # Last, for the same reason: a place that is free is one that there is.
            self._free.extend(range(2 * room - 1, room - 1, -1))
        return self._free.pop()

    def give_back(self, place: int) -> None:
        """Ends what :meth:`take` began."""
        self._free.append(place)


class Slots:
    """The slots and peers of one ``struct cm_turn``, csrc/cm_ring.h.

    Args:
        turn: whose ring they are.

    Attributes:
        ready: by slot of the server's own, what is to be done when that is readable.
    """

    def __init__(self, turn: CData) -> None:
        self._turn = turn
        self._slots = _Table("struct cm_slot")
        self._peers = _Table("struct cm_peer")
        self._unknown = ffi.new("struct cm_polling *")[0]
        self.ready: dict[int, Callable[[], None]] = {}
        self._shared: set[int] = set()
        self._share()

    def _share(self) -> None:
        ring = self._turn.ring
        ring.slots, ring.n_slots = self._slots.array, self._slots.room
        ring.peers, ring.n_peers = self._peers.array, self._peers.room

    def add_peer(self, *, exempt: bool = False) -> int:
        """A place for one more peer in the ring of turns; exempt: it may always begin a call."""
        index = self._peers.take()
        self._share()
        ffi.memmove(ffi.addressof(self._peers.array, index), ffi.new("struct cm_peer *"), ffi.sizeof("struct cm_peer"))
        if exempt:
            self._peers.array[index].exempt = 1
        return index

    def add_shared(self) -> int:
        """A place in the ring of turns, for good, that several descriptors of the server's own share."""
        index = self.add_peer()
        self._shared.add(index)
        return index

    def remove_peer(self, index: int) -> None:
        """Ends what :meth:`add_peer` began; none of its slots is watched any more."""
        if self._peers.array[index].full:
            lib.cm_fill(ffi.addressof(self._turn, "ring"), index, 0)
        self._peers.give_back(index)

    def watch_own(self, owner: Private, ready: Callable[[], None], peer: int = 0) -> int:
        """Has one of the server's own descriptors watched, beside the channels; its slot.

        Args:
            owner: of the descriptor, borrowed until :meth:`unwatch_own`.
            ready: called in a turn of the loop when it is readable.
            peer: whose turns it shares, a place of :meth:`add_shared`; 0: it has turns of its own.

        Raises:
            KernelError: it cannot be watched.
        """
        peer = peer or self.add_peer()
        slot, result = self._watch(owner.number, peer, lib.CM_OWN, 0, 0)
        if result < 0 and peer not in self._shared:
            self.remove_peer(peer)
        check(result, "watching a descriptor of the server's own", WATCHING)
        self.ready[slot] = ready
        return slot

    def unwatch_own(self, slot: int) -> None:
        """Ends what :meth:`watch_own` began; once, for the place in the ring is somebody else's then."""
        peer = int(self._slots.array[slot].peer)
        self.unwatch(slot)
        self.ready.pop(slot, None)
        if peer not in self._shared:
            self.remove_peer(peer)

    def watch_channel(self, number: int, peer: int, room: int, mode: int, secret: bytes) -> tuple[int, int]:
        """Has a channel read, which was made through the door with this secret; its slot, and 0 or -errno."""
        return self._watch(number, peer, lib.CM_CHANNEL, room, mode, secret)

    def _watch(
        self, number: int, peer: int, kind: int, room: int, mode: int, secret: bytes = NO_SECRET
    ) -> tuple[int, int]:
        slot = self._slots.take()
        self._share()
        entry = self._slots.array[slot]
        entry.generation += 1
        entry.descriptor, entry.peer, entry.kind, entry.room, entry.mode = number, peer, kind, room, mode
        ffi.memmove(entry.secret, secret, BADGE_SIZE)
        entry.polling = self._unknown
        # A knock is heard of too: its call is about to come.
        entry.used = self._turn.records
        result = lib.cm_watch(self._turn, slot)
        if result < 0:
            entry.descriptor = -1
            self._slots.give_back(slot)
            return 0, result
        return slot, 0

    def expect_parts(self, slot: int, assembly: CData) -> None:
        """Has C put the parts of a long call where they belong, a ``struct cm_assembly``; NULL ends that."""
        self._slots.array[slot].assembly = assembly

    def unwatch_number(self, number: int) -> None:
        """Ends the watching of a descriptor whose slot nobody knows any more, if there is one."""
        for slot in range(1, self._slots.room):
            if self._slots.array[slot].descriptor == number:
                self.unwatch(slot)

    def unwatch(self, slot: int) -> None:
        """Ends that; the descriptor is closed by its owner, after this.  Does nothing the second time."""
        if self._slots.array[slot].descriptor >= 0:
            lib.cm_unwatch(self._turn, slot)
            self._slots.give_back(slot)
