"""Long calls on their way in: put together part by part, refused where they are too long, and bounded.

A call that is announced takes a share of what may be on its way: its peer's, its user's, and over all.  Where there is
none, it is not read on until there is; and a peer that has less than its fair share gets it from the one that has most,
whose call has not run, and is repeated by its client.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from capmarshal._kernel.errors import KernelError
from capmarshal._kernel.native import NULL
from capmarshal._protocol import wire
from capmarshal._protocol.parts import Assembly
from capmarshal._protocol.states import UNBEGUN, Event
from capmarshal._server.dispatch import Received
from capmarshal._server.ledger import Resource
from capmarshal._server.timers import Again

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.closings import Closings
    from capmarshal._server.shares import Bounds
    from capmarshal._server.timers import Timers

# Peers that are asked whether they can go on, when something has ended.
_ASKED = 16
# Nanoseconds that a call on its way may stand still while others wait for their share.
_STILL = 1_000_000_000


class Arrivals:
    """Receives the long calls of a server's clients.

    Args:
        channels: of the server.
        closings: closes what came of calls that are given up.
        timers: of the loop.
        give_up: ends a channel whose call has not run, and whose client will repeat it.
    """

    def __init__(
        self, channels: Channels, closings: Closings, timers: Timers, give_up: Callable[[Channel], None]
    ) -> None:
        self._looking = Again(timers, _STILL, self._look_after)
        self._channels = channels
        self._closings = closings
        self._shares = channels.shares
        self._give_up = give_up
        # Those that wait for a share, by peer, each in the order in which they asked.
        self._waiting: dict[Peer, dict[Channel, Assembly]] = {}
        # Those whose call is on its way.
        self._begun: dict[Channel, Assembly] = {}

    def begin(self, channel: Channel, begin: wire.Begin) -> str:
        """A long call is announced; why it is refused, or empty."""
        reason = self._shares.arguments_too_large(begin.size, begin.descriptors)
        if reason:
            channel.refused = begin.id
            return reason
        try:
            channel.assembly = Assembly(begin)
        except KernelError as error:
            channel.refused = begin.id
            return f"arguments of {begin.size} bytes; at the server, {error.strerror}"
        channel.refused = None
        if self._fits(channel, channel.assembly) or self._takes_from_others(channel, channel.assembly):
            self._book(channel, channel.assembly)
            self._channels.move(channel, Event.BEGIN)
        else:
            self._looking.begin()
            self._waiting.setdefault(channel.peer, {})[channel] = channel.assembly
            self._channels.move(channel, Event.QUEUE)
        return ""

    def _look_after(self) -> bool:
        """Gives up calls on their way that have not moved for a while; whether others wait for their share still."""
        still = time.monotonic_ns() - _STILL
        for channel, assembly in sorted(self._begun.items(), key=lambda begun: begun[1].moved):
            if assembly.moved > still or not any(self._waiting.values()):
                break
            # What a peer that is held back sends is not read, and that is its own doing.
            if channel.peer.held or not channel.awaits_server():
                self._give_up(channel)
        for peer in tuple(itertools.islice(self._waiting, _ASKED)):
            self._admit(peer)
        return any(self._waiting.values())

    def _book(self, channel: Channel, assembly: Assembly) -> None:
        assembly.admit()
        self._begun[channel] = assembly
        self._channels.slots.expect_parts(channel.slot, assembly.struct)
        for what, _, amount in self._wanted(assembly):
            self._channels.book(channel, what, amount)

    def _fits(self, channel: Channel, assembly: Assembly) -> bool:
        """Whether there is a share for it."""
        ledger, peer, user = self._channels.ledger, channel.peer, channel.peer.user
        return all(
            not amount
            or may.admit(amount, ledger.of_peer(user, peer, what), ledger.of_user(user, what), ledger.total[what])
            for what, may, amount in self._wanted(assembly)
        )

    def _wanted(self, assembly: Assembly) -> tuple[tuple[Resource, Bounds, int], ...]:
        """What a call takes of what may be on its way."""
        return (
            (Resource.BEGUN_BYTES, self._shares.begun_bytes, assembly.size),
            (Resource.BEGUN_DESCRIPTORS, self._shares.begun_descriptors, assembly.total),
        )

    def _takes_from_others(self, channel: Channel, assembly: Assembly) -> bool:
        """Makes room where a peer has less than its fair share and others have more; whether there is a share then."""
        ledger, peer, user = self._channels.ledger, channel.peer, channel.peer.user
        for what, may, amount in self._wanted(assembly):
            if ledger.of_peer(user, peer, what) + amount > ledger.fair_share(user, peer, what, may):
                return False
            while (own := ledger.of_user(user, what) + amount > may.user) or ledger.total[what] + amount > may.whole:
                most = ledger.most(what, user if own else None)
                if most is None or most is peer:
                    return False
                victim = next(
                    (one for one in most.channels.values() if one.booked[what] and one.state in UNBEGUN), None
                )
                if victim is None:
                    return False
                self._give_up(victim)
        return self._fits(channel, assembly)

    def part(self, channel: Channel, part: wire.Part, received: Received) -> tuple[bool, Received | None]:
        """The next part of a long call: whether its client waits for a GO, and the whole call, if it is complete.

        Raises:
            Malformed: it is no such part; the descriptors are the channel's assembly's all the same, or closed.
        """
        assembly = channel.assembly
        if assembly is None:
            self._closings.close(channel.peer, [received.descriptors])
            if part.id != channel.refused:
                raise wire.Malformed("a part of nothing", part.id)
            # Sent before the client had read that its call is refused.
            return part.descriptors > 0, None
        go = assembly.add(part, received.descriptors, received.lost)
        if received.cut:
            raise wire.Malformed("a part is larger than any may be", part.id)
        return go, self.whole(channel, assembly) if assembly.complete else None

    def whole(self, channel: Channel, assembly: Assembly) -> Received:
        """The call of which all parts have come; it is not on its way any more."""
        whole = Received(assembly.data, assembly.steal(), assembly.lost)
        self.end(channel)
        return whole

    def end(self, channel: Channel) -> None:
        """Ends what is on its way on a channel: it is complete, abandoned, or the channel is being dropped."""
        assembly, peer = channel.assembly, channel.peer
        if assembly is None:
            return
        self._channels.slots.expect_parts(channel.slot, NULL)
        self._begun.pop(channel, None)
        self._waiting.get(peer, {}).pop(channel, None)
        self._closings.close(channel.peer, [assembly.steal()])
        for what, _, _ in self._wanted(assembly):
            self._channels.book(channel, what, 0)
        # Where Ctrl-C comes before, it is done again.
        channel.assembly = None
        self._admit(peer)
        for other in tuple(itertools.islice(self._waiting, _ASKED)):
            self._admit(other)

    def _admit(self, peer: Peer) -> None:
        """Goes on with those of a peer that waited for a share, as long as there is one."""
        waiting = self._waiting.pop(peer, {})
        for channel, assembly in tuple(waiting.items()):
            if not self._fits(channel, assembly):
                # At the end of those that are asked next time.
                self._waiting[peer] = waiting
                return
            del waiting[channel]
            self._book(channel, assembly)
            self._channels.move(channel, Event.ADMIT)
