"""The channels that a server reads: which slot of its epoll set is whose, and how many each peer has."""

from __future__ import annotations

import os
import resource
import select
import weakref
from typing import TYPE_CHECKING

from capmarshal import _reaper
from capmarshal._capability import Peer
from capmarshal._descriptor import Descriptor
from capmarshal._lx import ffi, lib

if TYPE_CHECKING:
    from capmarshal._dispatch import Answer
    from capmarshal._lx import CData
    from capmarshal._private import Private

_FIRST_ROOM = 16
# The most channels of one process (as the knock's credentials name it), and of all, as shares of the descriptor table.
_PEER_SHARE, _PEER_MAX = 4, 256
_ALL_SHARE_NUMERATOR, _ALL_SHARE_DENOMINATOR = 3, 4


class Parked:
    """An answer that its client has no room for at the moment: the one that it is allowed to cost.

    Args:
        answer: stays its owner's; the descriptors are duplicated.
        give_up: until when the kernel's refusal of descriptors in flight is borne, if that is why.

    Raises:
        TableFull: no room for the duplicates.
    """

    __slots__ = ("_descriptors", "call_id", "data", "give_up")

    def __init__(self, answer: Answer, give_up: int | None) -> None:
        self.call_id = answer.id
        self.data = answer.data
        self.give_up = give_up
        self._descriptors: list[Descriptor] = []
        try:
            for number in answer.numbers:
                self._descriptors.append(Descriptor.dup_of(number))
        except BaseException:
            self.close()
            raise

    @property
    def numbers(self) -> list[int]:
        """The descriptors to send, borrowed."""
        return [descriptor.fileno() for descriptor in self._descriptors]

    def close(self) -> None:
        """Closes the duplicates."""
        for descriptor in self._descriptors:
            descriptor.close()


class Client:
    """One channel, as its server sees it."""

    __slots__ = ("far", "parked", "peer")

    def __init__(self, far: Private, peer: Peer) -> None:
        self.far = far
        self.peer = peer
        self.parked: Parked | None = None


class Clients:
    """The slots of one server.

    Args:
        turn: the ``struct cm_turn`` whose slots these are.
    """

    def __init__(self, turn: CData) -> None:
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
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(_PEER_MAX, max(soft // _PEER_SHARE, 1))
        if self._channels.get(peer, 0) >= most:
            return f"process {peer.pid} has {most} channels already"
        most = max(soft * _ALL_SHARE_NUMERATOR // _ALL_SHARE_DENOMINATOR, 1)
        if len(self) >= most:
            return f"{most} channels are open already, of {soft} descriptors (RLIMIT_NOFILE)"
        return ""

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
        self._by_slot[slot] = Client(far, peer)
        self._channels[peer] = self._channels.get(peer, 0) + 1
        self._peers[peer.pid, peer.uid] = peer
        return ""

    def disown(self, far: Private) -> None:
        """Forgets a channel that Ctrl-C kept from being added, or not; the caller may close it then."""
        if any(client is not None and client.far is far for client in self._by_slot):
            return
        lib.lx_epoll_ctl(self._turn.epoll, lib.EPOLL_CTL_DEL, far.number, ffi.NULL)
        _reaper.close(far)

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

    def await_room(self, slot: int) -> None:
        """Reads the channel no more, until it can be written again."""
        lib.cm_watch(self._turn, slot, lib.EPOLL_CTL_MOD, select.EPOLLOUT)

    def pause(self, slot: int) -> None:
        """Reads the channel no more."""
        lib.cm_watch(self._turn, slot, lib.EPOLL_CTL_MOD, 0)

    def resume(self, slot: int) -> None:
        """Reads the channel again."""
        lib.cm_watch(self._turn, slot, lib.EPOLL_CTL_MOD, select.EPOLLIN)

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
        if client.parked is not None:
            _reaper.close(client.parked)
        # Its queue may hold what takes long to close.
        _reaper.close(client.far)

    def drop_all(self) -> None:
        """Ends all channels."""
        for slot in range(lib.CM_FIRST_CHANNEL, len(self._by_slot)):
            self.drop(slot)
