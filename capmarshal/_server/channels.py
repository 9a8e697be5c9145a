"""The channels that a server reads: what each is in, where C has it, and which gives way when there is no room."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._descriptors import reaper
from capmarshal._kernel.errors import KernelError, watches_limit
from capmarshal._kernel.native import lib
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol.states import (
    CALLS,
    READS,
    SPARE,
    TRANSITIONS,
    UNBEGUN,
    UNREAD,
    WATCHES,
    WRITES,
    Event,
    State,
)
from capmarshal._server.clients import Channel, Load
from capmarshal._server.hanging_up import HangingUp
from capmarshal._server.ledger import Ledger, Resource
from capmarshal._server.slots import Slots
from capmarshal._server.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.native import CData
    from capmarshal._server.clients import Peer, User
    from capmarshal._server.grant import Grant
    from capmarshal._server.shares import Shares
    from capmarshal._server.timers import Timers

# Looked up once: an attribute of cffi's is 40 ns.
_cm_allow, _cm_reply_beside = lib.cm_allow, lib.cm_reply_beside

# The part of what a process, or a user, may have in the table that it may have besides: what the reaper is about to
# close.
_SLACK = 16

# Channels of a peer that are looked at to find the one that is missed least.
_LOOKED_AT = 32


def _mode(state: State) -> int:
    """What C has to know of a state."""
    return (
        (lib.CM_READS if state in READS else 0)
        | (lib.CM_CALLS if state in CALLS else 0)
        | (lib.CM_PLAIN if state in SPARE else 0)
        | (lib.CM_WRITES if state in WRITES else 0)
        | (lib.CM_WATCHES if state in WATCHES else 0)
    )


_MODES = {state: _mode(state) for state in State}
# What a channel is in when the method of a call that has come in one record runs beside others.
_BEGUN = TRANSITIONS[TRANSITIONS[State.IDLE][Event.CALL]][Event.HANDLE]
_BEGUN_MODE = _MODES[_BEGUN]
# And when it has, and the answer is sent.
_ANSWERED = TRANSITIONS[State.HANDLED][Event.SENT]
_ANSWERED_MODE = _MODES[_ANSWERED]


class Channels:
    """The channels of one server, and the accounts of whom they belong to.

    Args:
        turn: the ``struct cm_turn`` that C reads them by.
        shares: how many there may be, and what they may cost.
        timers: of the loop.

    Attributes:
        shares: as given.
        ledger: who has how much.
        slots: where C has them.
        hanging_up: closes those that end.
        unread: descriptors that were sent on them and not received.
        load: of all calls that run beside others, but this process's own.
        placed: called when a peer has got a place in the ring of turns.
        displaced: called when it has that no more.
        process_ended: called when the process of a peer has ended, until it has no channels any more, and none of
            them is kept.
    """

    def __init__(self, turn: CData, shares: Shares, timers: Timers) -> None:
        self.ledger: Ledger[User, Peer] = Ledger()
        self._turn = turn
        self.shares = shares
        self.slots = Slots(turn)
        self._by_slot: dict[int, Channel] = {}
        self.load = Load()
        self.hanging_up = HangingUp(timers)
        self.unread = Unread(shares, self.hanging_up)
        self.unread.nothing_kept = weakly(self._end_peer, None)
        self.process_ended: Callable[[Peer], None] = lambda _peer: None
        self.placed: Callable[[Peer], None] = lambda _peer: None
        self.displaced: Callable[[Peer], None] = lambda _peer: None

    def __len__(self) -> int:
        return len(self._by_slot)

    def get(self, slot: int) -> Channel | None:
        """Who is in a slot."""
        return self._by_slot.get(slot)

    def all(self) -> list[Channel]:
        """Those that are open."""
        return list(self._by_slot.values())

    def move(self, channel: Channel, event: Event, then: Event | None = None) -> bool:
        """Changes what a channel is in: the one place where that happens.

        Args:
            channel: whose state it is.
            event: what happens to it.
            then: what happens to it at once after that.

        Returns:
            False if the kernel will not report it any more (epoll_ctl(2) failed): it can only be dropped.

        Raises:
            RuntimeError: the table has no such transition: a fault of ours.
        """
        before = channel.state
        after = TRANSITIONS[before].get(event)
        if then is not None and after is not None:
            after = TRANSITIONS[after].get(then)
        if after is None:
            raise RuntimeError(f"a channel that is {before.name} cannot {(then or event).name}")
        channel.state = after
        mode = _MODES[after]
        if mode == _MODES[before] or after is State.ENDED:
            return True
        return _cm_allow(self._turn, channel.slot, mode) == 0

    def begin_beside(self, channel: Channel) -> bool:
        """Moves a channel to where the method of the call that has come on it runs beside others; as :meth:`move`."""
        if channel.state is State.RUNNING:
            # It came in a record that was looked at closer.
            return self.move(channel, Event.HANDLE)
        if channel.state is not State.IDLE:
            return self.move(channel, Event.CALL, Event.HANDLE)
        channel.state = _BEGUN
        return _cm_allow(self._turn, channel.slot, _BEGUN_MODE) == 0

    def reply_beside(self, channel: Channel, call_id: int, payload: bytes) -> bool:
        """Sends the reply to a call whose method ran beside others, and moves its channel, in one crossing.

        Returns:
            False where that cannot be: it was not sent, and nothing has changed.
        """
        if channel.state is not State.HANDLED or channel.refused is not None:
            return False
        if _cm_reply_beside(self._turn, channel.slot, call_id, payload, len(payload), _ANSWERED_MODE) != 0:
            return False
        channel.state = _ANSWERED
        return True

    def book(self, channel: Channel, what: Resource, amount: int) -> None:
        """Charges a channel, and so its peer and its user, with an amount in place of what it was charged with."""
        change = amount - channel.booked[what]
        if not change:
            return
        channel.booked[what] = amount
        self.ledger.change(channel.peer.user, channel.peer, what, change)

    def refusal(self, peer: Peer) -> str:
        """Why a peer gets no more channels; empty if it does, as far as its share goes.

        This process itself has any number: its calls may be what those that run already wait for.
        """
        if peer.ended:
            # Of its channels nobody would tell the end, if it has sent both ends of one.
            return f"{peer.process} has ended"
        if peer.held:
            return f"{peer!r} is held back: {', '.join(sorted(peer.held))}"
        if len(peer.channels) >= self.shares.channels.process and not peer.own:
            return f"{peer.process} has {len(peer.channels)} channels already (limits.channels, process_share)"
        if peer.user.waiting and not peer.own:
            return self._piled_up(peer)
        return ""

    def _piled_up(self, peer: Peer) -> str:
        """Why a peer gets no more channels until some are closed; empty if it does.

        One that has ended is in the table for as long as its closing waits, which its user may make long.
        """
        may, user = self.shares.places, peer.user
        own = len(peer.channels) + peer.waiting
        of_user = self.ledger.of_user(user, Resource.CHANNELS) + user.waiting
        if own > may.process + may.process // _SLACK:
            return f"{peer.waiting} descriptors of {peer.process} wait to be closed (process_share)"
        if of_user > may.user + may.user // _SLACK or user.waiting > self.shares.closing.whole:
            return f"{user.waiting} descriptors of user {user.uid} wait to be closed (user_share)"
        return ""

    def full(self, user: User) -> bool:
        """Whether there are as many channels as there may be, of this user or over all."""
        may = self.shares.channels
        return len(self) >= may.whole or self.ledger.of_user(user, Resource.CHANNELS) >= may.user

    def add(self, far: Private, peer: Peer, gid: int = lib.CM_NOBODY, grant: Grant | None = None) -> str:
        """Takes a new channel and has it read; or says why not, and the caller still owns it.

        Args:
            far: its end.
            peer: who has knocked.
            gid: of the group of that.
            grant: at whose door; None: at the entrypoint's own.
        """
        if not peer.index:
            peer.index = self.slots.add_peer(exempt=peer.own)
            peer.user.peers[peer] = None
            lib.cm_hold(self._turn, peer.index, bool(peer.held))
            self.placed(peer)
        self._watch_end(peer)
        channel = Channel(far, peer, gid, grant)
        slot, result = self.slots.watch_channel(
            far.number, peer.index, min(channel.room, self.shares.max_bytes), _MODES[channel.state], channel.secret
        )
        if result < 0:
            self._end_peer(peer)
            return f"it cannot be watched: {watches_limit() if result == -errno.ENOSPC else os.strerror(-result)}"
        channel.slot = slot
        peer.channels[slot] = channel
        self.book(channel, Resource.CHANNELS, 1)
        if grant is not None:
            grant.channels.add(channel)
        # Last: what Ctrl-C leaves without it was never added, whatever was counted.
        self._by_slot[slot] = channel
        return ""

    def _watch_end(self, peer: Peer) -> None:
        """Has the end of the process told; its first knock may have found no room for the pidfd."""
        if peer.pidfd is not None and not peer.pidfd_slot:
            # Where it cannot be watched, the ends of its channels tell.
            with contextlib.suppress(KernelError):
                peer.pidfd_slot = self.slots.watch_own(peer.pidfd, partial(self.process_ended, peer))

    def disown(self, far: Private, grant: Grant | None) -> None:
        """Closes a channel that Ctrl-C kept from being added, if it was not; its door is that of the grant."""
        if any(channel.far is far for channel in self._by_slot.values()):
            return
        if grant is not None:
            grant.channels = {channel for channel in grant.channels if channel.far is not far}
        self.slots.unwatch_number(far.number)
        reaper.close([far])

    def remove(self, channel: Channel) -> None:
        """Ends a channel, and what it is charged with; what it had on its way in or out is ended already."""
        if channel.state is not State.ENDED:
            self.move(channel, Event.END)
        # Before the close: the client may still hold a copy, and the kernel would go on reporting it.
        self.slots.unwatch(channel.slot)
        peer = channel.peer
        peer.channels.pop(channel.slot, None)
        for what in Resource:
            self.book(channel, what, 0)
        self.unread.end(channel)
        self._end_peer(peer)
        # Last: one that Ctrl-C keeps from being ended is found, and ended again.
        self._by_slot.pop(channel.slot, None)

    def count_anew(self) -> None:
        """All channels have ended: nobody has anything any more, whatever Ctrl-C kept from being counted."""
        self.ledger = Ledger()

    def _end_peer(self, peer: Peer) -> None:
        if peer.channels:
            return
        # First, here and below: better a place that nobody has, after Ctrl-C, than one that two have.
        index, peer.index = peer.index, 0
        if index:
            self.slots.remove_peer(index)
            peer.user.peers.pop(peer, None)
            self.displaced(peer)
        if self.unread.keeps(peer):
            # Those that have ended are closed when its process does.
            return
        slot, peer.pidfd_slot = peer.pidfd_slot, 0
        if slot:
            self.slots.unwatch_own(slot)
        if peer.pidfd is not None:
            peer.pidfd.close()
        peer.pidfd = None

    def hold(self, peer: Peer, why: str) -> None:
        """Takes no more calls of this peer, on any of its channels, and no more channels."""
        peer.held.add(why)
        if peer.index:
            lib.cm_hold(self._turn, peer.index, 1)

    def release(self, peer: Peer, why: str) -> None:
        """Ends what :meth:`hold` began for this reason."""
        peer.held.discard(why)
        if not peer.held and peer.index:
            lib.cm_hold(self._turn, peer.index, 0)

    def spare(self, newcomer: Peer) -> Channel | None:
        """The channel that gives way to a newcomer when there is no room; None if none does.

        Of the peer with most of the user with most (of the newcomer's own, if that has all that it may), one between
        two calls.  If it has none, a peer that has less than its fair share gets one of those whose call has not run,
        or whose answer is not read; any other, one of its own.
        """
        ledger, user, what, may = self.ledger, newcomer.user, Resource.CHANNELS, self.shares.channels
        most = ledger.most(what, user if ledger.of_user(user, what) >= may.user else None)
        if most is None:
            return None
        found = self._missed_least(most, SPARE) or self._missed_least(most, frozenset({State.SETTLING}))
        if found is not None:
            return found
        share = ledger.fair_share(user, newcomer, what, may)
        if len(newcomer.channels) < share and most is not newcomer:
            return self._missed_least(most, UNBEGUN) or self._missed_least(most, UNREAD)
        return self._missed_least(newcomer, SPARE)

    def hoarder(self) -> Channel | None:
        """The channel whose unfinished call holds most descriptors, of the peer whose calls hold most."""
        what = Resource.BEGUN_DESCRIPTORS
        peer = self.ledger.most(what)
        if peer is None:
            return None
        unbegun = [channel for channel in peer.channels.values() if channel.state in UNBEGUN]
        return max(unbegun, key=lambda channel: channel.booked[what], default=None)

    def _missed_least(self, peer: Peer, states: frozenset[State]) -> Channel | None:
        """Of those that were not looked at for longest, the one that is not used for longest."""
        slots = self._turn.ring.slots
        looked_at = list(itertools.islice(peer.channels, _LOOKED_AT))
        if len(peer.channels) > _LOOKED_AT:
            for slot in looked_at:
                peer.channels[slot] = peer.channels.pop(slot)
        fitting = [
            channel
            for slot in looked_at
            if (channel := self._by_slot.get(slot)) is not None and channel.state in states
        ]
        return min(fitting, key=lambda channel: slots[channel.slot].used, default=None)
