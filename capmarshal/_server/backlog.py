"""Answers that wait for their readers: how many bytes of them a process, a user, and all together may have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capmarshal._protocol.states import UNREAD
from capmarshal._server.ledger import Resource
from capmarshal._server.timers import Again

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.timers import Timers

_BYTES = Resource.UNREAD_BYTES
# Nanoseconds that an answer may stand still while its peer has more unread than it may.
_STILL = 1_000_000_000
# And where its user, or all together, have more.
_STILL_NOW = 50_000_000

# Why a peer is held back.
_HELD = "it does not read its answers"
_CROWDED = "more is unread, over all, than may be"


class Backlog:
    """Keeps account of what waits, and ends what nobody reads.

    A peer that has more unread than it may makes no more calls until it has read enough, and loses the channels on
    which nothing moves for a second.  Where its user, or all together, have more, the peer with most loses the one that
    has stood still for longest; where all of them move, who comes next makes no more calls until there is room.  Nobody
    stands still who has read what was sent, however long the server then takes to send more.

    Args:
        channels: of the server.
        timers: of the loop.
        drop: ends a channel for a reason of its client's making.
    """

    def __init__(self, channels: Channels, timers: Timers, drop: Callable[[Channel, str], None]) -> None:
        self._channels = channels
        self._drop = drop
        self._may = channels.shares.unread_bytes
        # Peers that are held back until there is room for more.
        self._crowding: set[Peer] = set()
        self._bounding = Again(timers, _STILL_NOW, self._bound_again)
        # Those that have more unread than they may.
        self._heavy: set[Peer] = set()
        self._looking = Again(timers, _STILL, self._look_after)

    def add(self, channel: Channel, size: int) -> None:
        """Counts an answer that waits, and sees to what then has to happen."""
        peer = channel.peer
        self._channels.book(channel, _BYTES, size)
        if self._of_peer(peer) > self._may.process and _HELD not in peer.held:
            self._looking.begin()
            self._heavy.add(peer)
            self._channels.hold(peer, _HELD)
        self._bound(peer)

    def remove(self, channel: Channel) -> None:
        """Counts it no more: it is sent, or not wanted."""
        if channel.booked[_BYTES]:
            self._channels.book(channel, _BYTES, 0)
        peer = channel.peer
        if _HELD in peer.held and self._of_peer(peer) <= self._may.process:
            self._channels.release(peer, _HELD)
            self._heavy.discard(peer)

    def _of_peer(self, peer: Peer) -> int:
        return self._channels.ledger.of_peer(peer.user, peer, _BYTES)

    def _bound(self, peer: Peer) -> None:
        ledger, user, may = self._channels.ledger, peer.user, self._may
        while (own := ledger.of_user(user, _BYTES) > may.user) or ledger.total[_BYTES] > may.whole:
            most = ledger.most(_BYTES, user if own else None)
            if most is not None and self._drop_stillest(most):
                continue
            self._bounding.begin()
            self._crowding.add(peer)
            self._channels.hold(peer, _CROWDED)
            return

    def _bound_again(self) -> bool:
        crowding = tuple(self._crowding)
        for peer in crowding:
            self._channels.release(peer, _CROWDED)
        # Not before: where Ctrl-C comes in between, it is done again.
        self._crowding = set()
        for peer in crowding:
            self._bound(peer)
        return bool(self._crowding)

    def _drop_stillest(self, peer: Peer) -> bool:
        """Drops the channel of a peer whose answer has stood still for longest; whether there was one."""
        waiting = self._still(peer, _STILL_NOW)
        if not waiting:
            return False
        unread = self._channels.ledger.total[_BYTES]
        stillest = min(waiting, key=lambda channel: channel.outbox.moved if channel.outbox is not None else 0)
        self._drop(stillest, f"{unread} bytes of answers are unread, over all; {self._may.whole} may be")
        return True

    def _still(self, peer: Peer, nanoseconds: int) -> list[Channel]:
        """The channels of a peer whose answers wait for it, and have not moved for that time."""
        since = time.monotonic_ns() - nanoseconds
        return [
            channel
            for channel in peer.channels.values()
            if channel.state in UNREAD
            and (outbox := channel.outbox) is not None
            and outbox.give_up is None
            and outbox.moved <= since
            and not channel.awaits_server()
        ]

    def _look_after(self) -> bool:
        """Drops the channels of held peers on which nothing has moved for a while."""
        for peer in tuple(self._heavy):
            for channel in self._still(peer, _STILL):
                unread, most = self._of_peer(peer), self._may.process
                self._drop(channel, f"it reads none of {unread} bytes; {most} may wait for a process")
        return bool(self._heavy)
