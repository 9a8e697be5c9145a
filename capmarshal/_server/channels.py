"""The channels that a server reads: which slot of its epoll set is whose, and how many each peer has."""

from __future__ import annotations

import os
import resource
import select
import weakref
from typing import TYPE_CHECKING

from capmarshal._capabilities.space import Peer
from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import reaper as _reaper
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.native import CData
    from capmarshal._protocol.parts import Assembly
    from capmarshal._server.answers import Outbox

_FIRST_ROOM = 16
# What is known of a client that has just knocked.
_UNKNOWN = ffi.new("struct cm_polling *")[0]
# The most channels of one process (as the knock's credentials name it), and of all, as shares of the descriptor table.
_PEER_SHARE, _PEER_MAX = 4, 256
_ALL_SHARE_NUMERATOR, _ALL_SHARE_DENOMINATOR = 3, 4


class Client:
    """One channel, as its server sees it.

    Attributes:
        far: the server's end.
        peer: who knocked.
        room: bytes that one record to it may have.
        outbox: the answer that is not fully sent yet; nothing is read until it is.
        assembly: the call that has not fully come yet.
        refused: the ID of a call that was answered before it had come; its remaining parts are passed over.
        read: its channel is being read.
    """

    __slots__ = ("assembly", "far", "outbox", "peer", "read", "refused", "room")

    def __init__(self, far: Private, peer: Peer) -> None:
        self.far = far
        self.peer = peer
        self.room = _inbox.record_room(far.number)
        self.outbox: Outbox | None = None
        self.assembly: Assembly | None = None
        self.refused: int | None = None
        self.read = True

    def send(self, record: bytes, numbers: Sequence[int] = ()) -> int:
        """Sends a record, and does not wait; 0 or -errno."""
        return lib.cm_send_record(self.far.number, record, len(record), numbers, len(numbers))

    @property
    def idle(self) -> bool:
        """Whether no call of it is in progress, as far as the server knows."""
        return self.outbox is None and self.assembly is None


class Clients:
    """The slots of one server.

    Args:
        turn: the ``struct cm_turn`` whose slots these are.
        max_bytes: of a call's or a result's record.
    """

    def __init__(self, turn: CData, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._turn = turn
        self._slots = ffi.new("struct cm_slot[]", _FIRST_ROOM)
        turn.slots, turn.n_slots = self._slots, _FIRST_ROOM
        for slot in range(_FIRST_ROOM):
            self._slots[slot].descriptor = -1
        self._by_slot: list[Client | None] = [None] * _FIRST_ROOM
        self._free = list(range(_FIRST_ROOM - 1, lib.CM_FIRST_CHANNEL - 1, -1))
        self._channels: dict[Peer, int] = {}
        # Weak: a peer is known as long as it has a channel here, or doors that it brought are held.
        self._peers: weakref.WeakValueDictionary[tuple[int, int], Peer] = weakref.WeakValueDictionary()
        # Peers that are to read their answers first, and the slots to be read again when they have.
        self._held: dict[Peer, set[int]] = {}

    def __len__(self) -> int:
        return sum(self._channels.values())

    def watch(self, slot: int, number: int) -> int:
        """Has one of the server's own descriptors reported when it is readable; 0 or -errno."""
        self._slots[slot].descriptor = number
        return lib.cm_watch(self._turn, slot, lib.EPOLL_CTL_ADD, select.EPOLLIN)

    def unwatch(self, slot: int) -> None:
        """Ends that."""
        lib.cm_watch(self._turn, slot, lib.EPOLL_CTL_DEL, 0)
        self._slots[slot].descriptor = -1

    def peer(self, pid: int, uid: int) -> Peer:
        """The one that knocked, by its credentials: they serve logs and quotas, not authority."""
        return self._peers.get((pid, uid)) or Peer(pid, uid)

    def refusal(self, peer: Peer) -> str:
        """Why this peer gets no more channels; empty if it does."""
        if peer in self._held:
            return f"process {peer.pid} does not read its answers"
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(_PEER_MAX, max(soft // _PEER_SHARE, 1))
        if self._channels.get(peer, 0) >= most:
            return f"process {peer.pid} has {most} channels already"
        return ""

    @property
    def full(self) -> bool:
        """Whether there are as many channels as the descriptor table can spare."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return len(self) >= max(soft * _ALL_SHARE_NUMERATOR // _ALL_SHARE_DENOMINATOR, 1)

    def add(self, far: Private, peer: Peer) -> str:
        """Takes a new channel and has it read; or says why not, and the caller still owns it."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._slots[slot].generation += 1
        result = self.watch(slot, far.number)
        if result < 0:
            self._slots[slot].descriptor = -1
            self._free.append(slot)
            return f"it cannot be watched: {os.strerror(-result)}"
        self._channels[peer] = self._channels.get(peer, 0) + 1
        self._peers[peer.pid, peer.uid] = peer
        client = Client(far, peer)
        entry = self._slots[slot]
        entry.room = min(client.room, self._max_bytes)
        entry.busy = 0
        entry.polling = _UNKNOWN
        # A knock is heard of too: its call is about to come.
        entry.used = self._turn.records
        # Last: what Ctrl-C leaves without it was never added, whatever was counted.
        self._by_slot[slot] = client
        return ""

    def disown(self, far: Private) -> None:
        """Forgets a channel that Ctrl-C kept from being added, or not; the caller may close it then."""
        if any(client is not None and client.far is far for client in self._by_slot):
            return
        lib.lx_epoll_ctl(self._turn.epoll, lib.EPOLL_CTL_DEL, far.number, ffi.NULL)
        _reaper.close([far])

    def _grow(self) -> None:
        room = len(self._by_slot)
        larger = ffi.new("struct cm_slot[]", 2 * room)
        ffi.memmove(larger, self._slots, ffi.sizeof(self._slots))
        for slot in range(room, 2 * room):
            larger[slot].descriptor = -1
        self._turn.slots, self._turn.n_slots = larger, 2 * room
        self._slots = larger
        self._by_slot += [None] * room
        self._free.extend(range(2 * room - 1, room - 1, -1))

    def get(self, slot: int) -> Client | None:
        """Who is in a slot."""
        return self._by_slot[slot]

    def mark(self, slot: int) -> None:
        """Has C know whether a channel is read, and for single records only."""
        client = self._by_slot[slot]
        if client is not None:
            self._slots[slot].busy = not (client.idle and client.read)

    def _set(self, slot: int, events: int) -> None:
        client = self._by_slot[slot]
        if client is not None:
            client.read = bool(events & select.EPOLLIN)
            self.mark(slot)
        lib.cm_watch(self._turn, slot, lib.EPOLL_CTL_MOD, events)

    def await_room(self, slot: int) -> None:
        """Reads the channel no more, until it can be written again."""
        self._set(slot, select.EPOLLOUT)

    def pause(self, slot: int) -> None:
        """Reads the channel no more."""
        self._set(slot, 0)

    def resume(self, slot: int) -> None:
        """Reads the channel again: when its peer is no more held, if it could bring a call."""
        client = self._by_slot[slot]
        if client is not None and client.outbox is None and client.peer in self._held:
            self._held[client.peer].add(slot)
            self.pause(slot)
        else:
            self._set(slot, select.EPOLLIN)

    def unread(self, peer: Peer) -> int:
        """Bytes of the answers that this peer has not fully read, over all its channels."""
        return sum(client.outbox.size for _, client in self._of(peer) if client.outbox is not None)

    def hold(self, peer: Peer) -> None:
        """Takes no more calls of this peer, on any of its channels, and no more channels."""
        if peer not in self._held:
            idle = [slot for slot, client in self._of(peer) if client.outbox is None and client.read]
            self._held[peer] = set(idle)
            for slot in idle:
                self.pause(slot)

    def release(self, peer: Peer) -> None:
        """Ends that."""
        slots = self._held.pop(peer, set())
        for slot, client in self._of(peer):
            if slot in slots and client.outbox is None:
                self.resume(slot)

    def held(self) -> list[Peer]:
        """Who is held."""
        return list(self._held)

    def stalled(self, peer: Peer, since: int) -> list[int]:
        """Slots of a peer whose answers have waited for it since then."""
        return [
            slot
            for slot, client in self._of(peer)
            if client.outbox is not None and client.outbox.give_up is None and client.outbox.moved <= since
        ]

    def _of(self, peer: Peer) -> list[tuple[int, Client]]:
        return [
            (slot, client) for slot, client in enumerate(self._by_slot) if client is not None and client.peer is peer
        ]

    def drop(self, slot: int) -> None:
        """Ends a channel."""
        client = self._by_slot[slot]
        if client is None:
            return
        # Before the close: the client may still hold a copy, and the kernel would go on reporting it.
        self.unwatch(slot)
        self._by_slot[slot] = None
        self._free.append(slot)
        self._channels[client.peer] -= 1
        if not self._channels[client.peer]:
            del self._channels[client.peer]
        if client.outbox is not None:
            client.outbox.close()
        if client.assembly is not None:
            client.assembly.close()
        # Its queue may hold what takes long to close.
        _reaper.close([client.far])

    def idlest(self) -> int | None:
        """The channel to give up when there is no room: of the peer that has most, the one not used for longest.

        If all are in use, the one whose unfinished call holds most descriptors: it did not run, and may be repeated.
        """
        best: tuple[int, int] | None = None
        found = None
        for slot, client in enumerate(self._by_slot):
            if client is not None and client.idle:
                rank = (-self._channels[client.peer], self._slots[slot].used)
                if best is None or rank < best:
                    best, found = rank, slot
        if found is None:
            held = {
                slot: len(client.assembly.descriptors)
                for slot, client in enumerate(self._by_slot)
                if client is not None and client.assembly is not None and client.assembly.descriptors
            }
            found = max(held, key=held.__getitem__, default=None)
        return found

    def slots(self) -> range:
        """Where channels may be."""
        return range(lib.CM_FIRST_CHANNEL, len(self._by_slot))
