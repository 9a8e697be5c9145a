"""Tells in the log of calls that wait for a place beside those that run: no client can know what its call waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._server.timers import Again

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from capmarshal._kernel.native import CData
    from capmarshal._server.clients import Peer
    from capmarshal._server.journal import Journal
    from capmarshal._server.timers import Timers

# Nanoseconds after which one is told of.
_LONG = 1_000_000_000


class WaitingCalls:
    """Looks whether the first that waits of each peer is still the same a while later.

    Args:
        ring: the ``struct cm_ring``, by which they wait.
        full: the peers that may begin no more.
        why: what keeps one of them from that, for people; of None, what keeps all.
        journal: of the entrypoint.
        timers: of the loop.
    """

    def __init__(
        self,
        ring: CData,
        full: Collection[Peer],
        why: Callable[[Peer | None], str],
        journal: Journal,
        timers: Timers,
    ) -> None:
        self._ring = ring
        self._full = full
        self._why = why
        self._journal = journal
        self._again = Again(timers, _LONG, self._tell)
        # By peer, the first that waited at the last look: its slot, when that was last read, and whether it is told of.
        self._seen: dict[Peer | None, tuple[int, int, bool]] = {}

    def look(self) -> None:
        """Has those told of that wait now, and will in a while; for who has a moment."""
        if self._seen or not (first := self._first()):
            return
        self._again.begin()
        self._seen = {peer: (slot, used, False) for peer, (slot, used) in first.items()}

    def _first(self) -> dict[Peer | None, tuple[int, int]]:
        """By peer, the first that waits; by None, of peers that have less than they may, where nobody may begin one."""
        ring = self._ring
        slots = {peer: ring.peers[peer.index].aside.first for peer in self._full if peer.index}
        first: dict[Peer | None, tuple[int, int]] = {
            peer: (slot, ring.slots[slot].used) for peer, slot in slots.items() if slot
        }
        if ring.full and ring.waiting:
            slot = ring.peers[ring.waiting].aside.first
            first[None] = slot, ring.slots[slot].used
        return first

    def _tell(self) -> bool:
        before, self._seen = self._seen, {}
        for peer, (slot, used) in self._first().items():
            *same, told = before.get(peer, (0, 0, False))
            waits = same == [slot, used]
            if waits and not told:
                self._journal.warning(peer, "waits", "%s", self._why(peer))
            self._seen[peer] = slot, used, waits
        return bool(self._seen)
