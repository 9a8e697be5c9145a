"""How a channel ends, and for whose reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._kernel.weakly import weakly
from capmarshal._protocol import wire
from capmarshal._protocol.states import State
from capmarshal._server.timers import Again

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.closings import Closings
    from capmarshal._server.journal import Journal
    from capmarshal._server.timers import Timers

# Nanoseconds between two looks at what clients that were dropped have not received.
_SWEEP = 1_000_000_000
# Records of theirs that are taken in such a look, from all of them.
_HEARD = 256
# Channels of a process that has ended, that are ended in one turn.
_ENDED_AT_ONCE = 8


class Endings:
    """Ends the channels of one server.

    Args:
        channels: of the server.
        closings: closes what clients have sent on channels that have ended.
        journal: of the entrypoint.
        timers: of the loop.
    """

    def __init__(self, channels: Channels, closings: Closings, journal: Journal, timers: Timers) -> None:
        self._channels = channels
        self._closings = closings
        self._sweeping = Again(timers, _SWEEP, self._sweep)
        self._journal = journal
        self._before: list[Callable[[Channel], None]] = []
        channels.process_ended = weakly(self._end_some, None)

    def before(self, end: Callable[[Channel], None]) -> None:
        """Has ``end`` called with each channel that is about to end: whoever has something on its way ends it."""
        self._before.append(weakly(end, None))

    def forget(self, channel: Channel) -> None:
        """Ends a channel: its client has gone, or the server is closed.

        Does nothing the second time, unless Ctrl-C has ended the first: then it ends what that has left.
        """
        if channel.state is not State.ENDED or self._channels.get(channel.slot) is channel:
            for end in self._before:
                end(channel)
            self._channels.remove(channel)
            if self._channels.unread.any_ended:
                self._sweeping.begin()

    def _sweep(self) -> bool:
        """Looks again at channels that have ended, until their clients have received all descriptors."""
        unread = self._channels.unread
        unread.sweep()
        unread.close_overdue()
        kept = unread.ended()
        for channel in kept:
            self._closings.hear(channel.peer, channel.far, _HEARD // len(kept) + 1)
        return unread.any_ended

    def _end_some(self, peer: Peer) -> None:
        """The process has ended, whoever holds copies of its sockets: so do its channels, and what they queued."""
        for channel in list(peer.channels.values())[:_ENDED_AT_ONCE]:
            self.forget(channel)
        if not peer.channels:
            self._channels.unread.close_ended(peer)

    def drop(self, channel: Channel, reason: str) -> None:
        """Ends a channel for a reason of its client's making; empty if that has just ended it, as clients may."""
        if channel.state is not State.ENDED:
            if reason:
                self._journal.warning(channel.peer, "dropped", "dropped a channel: %s", reason)
            self.forget(channel)

    def give_up(self, channel: Channel) -> None:
        """Ends a channel to make room; its client knocks again when it has something to say."""
        # A call that crosses this is not read, so that its client repeats it on a new channel.
        channel.send(wire.GONE_RECORD)
        self.forget(channel)
        self._channels.hanging_up.now()

    def give_up_hoard(self, spared: Channel | None = None) -> None:
        """Gives up the unfinished call that has most of the descriptors which fill the table, unless it is spared."""
        hoarder = self._channels.hoarder()
        if hoarder is not None and hoarder is not spared:
            self.give_up(hoarder)

    def fault(self, channel: Channel | None, error: Exception) -> None:
        """Ends a channel, if there is one, for a fault of ours, which nobody's record should be able to find."""
        peer = channel.peer if channel is not None else None
        self._journal.critical(peer, "fault", "a fault of capmarshal's own, please report it", exc_info=error)
        if channel is not None:
            self.forget(channel)
