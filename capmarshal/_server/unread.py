"""Descriptors that were sent to clients and not received: in flight, on this process's account, until they are.

The kernel counts them for the user that sent them, and lets nobody of that user send more than so many (ETOOMANYREFS).
So each peer, each user, and all together may have only so many lying unread.
"""

from __future__ import annotations

import itertools
import socket
import time
from typing import TYPE_CHECKING

from capmarshal._kernel.native import lib
from capmarshal._protocol import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.hanging_up import HangingUp
    from capmarshal._server.shares import Shares

_TIMES = 64
# Nanoseconds that the socket of a channel is kept that has ended, where nobody tells when its client's process does.
# After that it is closed, whatever was received: what is in flight then is no longer counted, and a client that lives
# on and never reads may have its share once more.  The other way, what was left in no one's hands would stay for good.
_KEPT = 300_000_000_000


class Unread:
    """Counts them.

    What has been received is not told; it is asked where it matters: when too many seem to lie unread.

    Args:
        shares: how many may lie unread.
        hanging_up: closes the sockets.

    Attributes:
        count: how many may not have been received.
        nothing_kept: called when no socket of a peer's is kept any more.
    """

    def __init__(self, shares: Shares, hanging_up: HangingUp) -> None:
        self._shares = shares
        self._hanging_up = hanging_up
        self.count = 0
        self._sweep_again_at = 0
        # So many may lie unread, whoever's they are; and how often that is not looked at again.
        self._few = self._asked_again_in = 0
        # On which channels; and those among them that have ended.
        self._channels: dict[Channel, None] = {}
        self._ended: dict[Peer, dict[Channel, int]] = {}
        self.nothing_kept: Callable[[Peer], None] = lambda _peer: None

    @property
    def any_ended(self) -> bool:
        """Whether there are channels that have ended, and whose clients have not received all descriptors."""
        return bool(self._ended)

    def ended(self) -> list[Channel]:
        """The channels that have ended, and whose clients have not received all descriptors."""
        return list(itertools.chain.from_iterable(self._ended.values()))

    def keeps(self, peer: Peer) -> bool:
        """Whether there are any of this peer's."""
        return peer in self._ended

    def send(self, channel: Channel, count: int) -> bool:
        """Counts descriptors that are about to be sent on a channel, if they may be; whether that is so."""
        peer = channel.peer
        # Few, as told a moment ago: the size of the table is asked for by a system call.
        if peer.user.unread + count > self._few or self.count + count > self._few or self._asked_again_in <= 0:
            if not self._may_send(peer, count):
                return False
            self._few = min(self._shares.unread_descriptors)
            self._asked_again_in = _TIMES
        self._asked_again_in -= 1
        # First: what Ctrl-C leaves is found when it is asked about.
        self._channels[channel] = None
        channel.unread += count
        peer.unread += count
        peer.user.unread += count
        self.count += count
        return True

    def not_sent(self, channel: Channel, count: int) -> None:
        """Takes back what :meth:`send` has counted."""
        count = min(count, channel.unread)
        channel.unread -= count
        channel.peer.book_unread(-count)
        self.count -= count

    def _received(self, channel: Channel) -> None:
        self._channels.pop(channel, None)
        if channel.unread:
            channel.peer.book_unread(-channel.unread)
            self.count -= channel.unread
            channel.unread = 0

    def _may_send(self, peer: Peer, count: int) -> bool:
        """Whether so many descriptors more may lie unread for a peer.

        Of a process, of a user, and over all: what one record carries may, if nothing else does.
        """
        if self._fits(peer, count):
            return True
        began = time.monotonic_ns()
        if began < self._sweep_again_at:
            return False
        self.sweep()
        # A tenth of the time at most goes into asking.
        self._sweep_again_at = began + 10 * (time.monotonic_ns() - began)
        return self._fits(peer, count)

    def _fits(self, peer: Peer, count: int) -> bool:
        return self._shares.unread_descriptors.admit(count, peer.unread, peer.user.unread, self.count)

    def sweep(self) -> None:
        """Asks of each channel on which descriptors were sent whether they have been received.

        There are no more of them than descriptors that may lie unread, and each that was received is asked once.
        """
        for channel in tuple(self._channels):
            if channel.all_received():
                self._received(channel)
                if channel in self._ended.get(channel.peer, ()):
                    self._close(channel)

    def end(self, channel: Channel) -> None:
        """Closes a channel's socket, or shuts it down if its client may still receive descriptors.

        Those are in flight on this process's account, channel or not: the socket is kept to ask when they are no more.
        Where a filter refuses to shut it down, its client sees the end when it has received them, and that was noticed.
        A call that was not read is told to its client, as the kernel does where a socket is closed, and only there.
        """
        if channel.unread and not channel.all_received():
            # First: nothing comes any more, behind what is looked at here.
            lib.lx_shutdown(channel.far.number, socket.SHUT_RD)
            if channel.lies_unread():
                channel.send(wire.GONE_RECORD)
            lib.lx_shutdown(channel.far.number, socket.SHUT_RDWR)
            self._ended.setdefault(channel.peer, {})[channel] = time.monotonic_ns() + _KEPT
        else:
            self._received(channel)
            self._close(channel)

    def _close(self, channel: Channel) -> None:
        peer = channel.peer
        kept = self._ended.get(peer, {})
        kept.pop(channel, None)
        self._hanging_up.close(peer, channel.far)
        if not kept and self._ended.pop(peer, None) is not None:
            self.nothing_kept(peer)

    def close_ended(self, peer: Peer | None = None) -> None:
        """Closes the sockets that were kept: of a peer whose process has ended, or all."""
        for channel in self.ended() if peer is None else tuple(self._ended.get(peer, ())):
            self._received(channel)
            self._close(channel)

    def close_overdue(self) -> None:
        """Closes those that were kept long enough, of peers the end of whose processes nobody tells."""
        now = time.monotonic_ns()
        for peer, kept in tuple(self._ended.items()):
            for channel, until in tuple(kept.items()) if not peer.pidfd_slot else ():
                if until <= now:
                    self._received(channel)
                    self._close(channel)
