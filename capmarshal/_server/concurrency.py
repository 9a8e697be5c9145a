"""Calls whose methods run beside others, in an event loop: how many there may be, and how each ends.

What exceeds the bounds is not read: it waits in its channel, and costs this process nothing.  C sets it aside
(csrc/cm_ring.h), and takes one in when one may begin, of each peer in its turn.  Calls of this process's own are
exempt: the method that makes one has its place already, and would wait for itself.

A call that only waits until there is something to be answered gives its place back, and takes none for its answer.

A process that has its share begins more as long as a reserve stays free, of all places and of its user's: places that
nobody needs are of use, and who has less than its share finds one at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from capmarshal._kernel.native import lib
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol.states import State
from capmarshal._server.answer import Answer, reply
from capmarshal._server.shares import spared

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._kernel.native import CData
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel, Load, Peer, User
    from capmarshal._server.endings import Endings
    from capmarshal._server.handler import Handler
    from capmarshal._server.records import Records

# Of many methods that run, so many are named.
_NAMED = 5


class Concurrency:
    """The calls of one server whose methods run beside others.

    Args:
        ring: the ``struct cm_ring``.
        channels: that they come by.
        records: knows what becomes of an answer.
        endings: of channels.
        concurrency: how many may run.
        rouse: has the loop take a turn.

    Attributes:
        handlers: those that run, whether anybody wants their answers or not, in the order in which they began; and by
            which channel each came.
        full: the peers that may begin no more, roughly as they will take turns.
        outlived: called with a channel that had ended before its call has.
    """

    def __init__(
        self,
        ring: CData,
        channels: Channels,
        records: Records,
        endings: Endings,
        concurrency: int,
        rouse: Callable[[], None],
    ) -> None:
        self.handlers: dict[Handler, Channel] = {}
        self.full: dict[Peer, None] = {}
        self.outlived: Callable[[Channel], None] = lambda _channel: None
        self._ring = ring
        self._channels = channels
        self._records = records
        self._endings = endings
        self._rouse = rouse
        self._shares = channels.shares
        self._most = concurrency
        may = self._shares.bounds(concurrency)
        # Who may have all of them waits with all others, and needs no mark of its own.
        self._share_of_peer = may.process if may.process < concurrency else math.inf
        self._most_of_user = may.user if may.user < concurrency else math.inf
        # Of a user, and of all: where so many run, who has its share begins no more.
        self._spared_of_user, self._spared = spared(may.user), spared(concurrency)
        # What all may have together without that anybody has too much.
        self._few_bytes = min(self._shares.begun_bytes)
        # Of peers that are not exempt; and those of them that have their share of the places, as they will take turns.
        self._load: Load = channels.load
        self._served: dict[Peer, None] = {}
        records.handle = weakly(self.begin, None)
        channels.placed, channels.displaced = weakly(self._placed, None), weakly(self._displaced, None)
        endings.before(self._forget)

    def begin(self, handler: Handler, channel: Channel) -> None:
        """Counts a call, has its channel watched, and has its method run."""
        if not self._channels.begin_beside(channel):
            handler.close()
            self._endings.drop(channel, "the kernel has no memory to watch it")
            return
        channel.handler = handler
        self.handlers[handler] = channel
        self._count(handler, channel.peer)
        try:
            handler.start()
        except BaseException:
            # There is no memory for a task, say: whoever has called finds out by its channel's end.
            self._never_ends(handler)
            raise

    def _count(self, handler: Handler, peer: Peer) -> None:
        if peer.own:
            return
        self._book(handler, peer, 1)
        if self._load.calls == self._most:
            lib.cm_fill(self._ring, 0, 1)
        if peer.load.calls >= self._share_of_peer:
            # Who has begun one is the last when they may begin again, here and below.
            self._served.pop(peer, None)
            self._served[peer] = None
        user, whole = peer.user, self._load
        few = whole.size <= self._few_bytes and not whole.descriptors
        if few and not self._served and user.load.calls < self._most_of_user:
            return
        if self._user_has_too_much(user) and peer.index:
            # Those that have none running, too.
            user.peers.pop(peer, None)
            user.peers[peer] = None
            for each in user.peers:
                if each not in self.full and not each.own:
                    self._fill(each)
        no_more_spare = whole.calls == self._spared or user.load.calls == self._spared_of_user
        for each in self._served if no_more_spare else (peer,):
            if each not in self.full and self._too_much(each):
                self._fill(each)
        if self._all_have_too_much():
            # Who has least of it goes on: one call by itself may always begin.
            for other in {channel.peer.user: None for channel in self.handlers.values()}:
                if self._user_has_too_much(other):
                    for each in other.peers:
                        if each not in self.full and not each.own:
                            self._fill(each)

    def _fill(self, peer: Peer) -> None:
        """Has a peer begin no more for now."""
        self.full[peer] = None
        if peer.index:
            lib.cm_fill(self._ring, peer.index, 1)

    def _book(self, handler: Handler, peer: Peer, times: int) -> None:
        """Counts one more, or, -1 times, one less."""
        own, user, whole = peer.load, peer.user.load, self._load
        calls = times * handler.place
        own.calls += calls
        user.calls += calls
        whole.calls += calls
        size = times * handler.size
        own.size += size
        user.size += size
        whole.size += size
        if handler.descriptors:
            descriptors = times * handler.descriptors
            own.descriptors += descriptors
            user.descriptors += descriptors
            whole.descriptors += descriptors

    def spoken(self, channel: Channel) -> None:
        """Something has come on a channel whose method runs: its client has given that call up."""
        # It is not read: whoever closes what has unread records says so, and an honest client sends its call again.
        if channel.state is State.HANDLED and channel.has_come():
            self._endings.forget(channel)

    def _forget(self, channel: Channel) -> None:
        """A channel is about to end, and with it what its method does."""
        if channel.handler is not None:
            channel.handler.cancel()

    def end(self, handler: Handler, answer: Answer | bytes, *, cut_off: bool) -> None:
        """Ends a call whose method has ended.

        Args:
            handler: the call.
            answer: to it, taken; or the payload of a reply, where there is nothing else.  It is not sent where nobody
                wants it.
            cut_off: the method was kept from answering, as all are: its client finds the server gone.
        """
        channel = self.handlers.pop(handler)
        try:
            channel.handler = None
            self._uncount(handler, channel.peer)
            if cut_off:
                if isinstance(answer, Answer):
                    answer.close()
                self._endings.forget(channel)
            elif isinstance(answer, Answer):
                self._records.finish(channel, answer)
            elif not self._records.reply_beside(channel, handler.id, answer):
                self._records.finish(channel, reply(handler.id, answer))
            if channel.state is State.ENDED:
                self.outlived(channel)
            self._rouse()
        except Exception as error:  # noqa: BLE001 - a fault of ours is one channel's, not the service's
            self._endings.fault(channel, error)

    def give_back(self, handler: Handler) -> None:
        """A call that runs only waits from here on: others have its place.  Does nothing the second time."""
        channel = self.handlers.get(handler)
        if channel is None or channel.peer.own or not handler.place:
            return
        handler.place = 0
        peer = channel.peer
        for load in (peer.load, peer.user.load, self._load):
            load.calls -= 1
        self._let_others_begin(peer)
        self._rouse()

    def _placed(self, peer: Peer) -> None:
        # It may have had no channel any more, and methods that have not ended all the same.
        if not peer.own and (peer in self.full or self._too_much(peer)):
            self._fill(peer)

    def _displaced(self, peer: Peer) -> None:
        if not peer.load.calls:
            self.full.pop(peer, None)

    def _uncount(self, handler: Handler, peer: Peer) -> None:
        if peer.own:
            return
        self._book(handler, peer, -1)
        self._let_others_begin(peer)

    def _let_others_begin(self, peer: Peer) -> None:
        """Has those begin calls again who may, where a peer has fewer than before."""
        if self._served and peer.load.calls < self._share_of_peer:
            self._served.pop(peer, None)
        if self._load.calls == self._most - 1:
            lib.cm_fill(self._ring, 0, 0)
        for full in tuple(self.full) if self.full else ():
            if not self._too_much(full):
                del self.full[full]
                if full.index:
                    lib.cm_fill(self._ring, full.index, 0)

    def _too_much(self, peer: Peer) -> bool:
        """Whether calls of a peer, or of its user, are as many, or have as much as may be: one by itself always may."""
        own = peer.load
        if self._has_too_many(peer) or own.size > self._shares.begun_bytes.process:
            return True
        # Asks the kernel.
        if own.descriptors and own.descriptors > self._shares.in_calls.process:
            return True
        return self._user_has_too_much(peer.user)

    def _has_too_many(self, peer: Peer) -> bool:
        """Whether it has its share of the places, and what is left is for others."""
        if peer.load.calls < self._share_of_peer:
            return False
        return self._load.calls >= self._spared or peer.user.load.calls >= self._spared_of_user

    def _user_has_too_many(self, user: User) -> bool:
        return user.load.calls >= self._most_of_user

    def _user_has_too_much(self, user: User) -> bool:
        """Likewise of a user's calls; where all have too much, what one user leaves to others is too much."""
        own, whole, may = user.load, self._load, self._shares.begun_bytes
        if self._user_has_too_many(user) or own.size > may.user:
            return True
        if whole.size > may.whole and own.size > may.whole - may.user:
            return True
        if not own.descriptors:
            return False
        may = self._shares.in_calls
        return own.descriptors > may.user or (whole.descriptors > may.whole and own.descriptors > may.whole - may.user)

    def _all_have_too_much(self) -> bool:
        whole = self._load
        return whole.size > self._shares.begun_bytes.whole or (
            whole.descriptors > 0 and whole.descriptors > self._shares.in_calls.whole
        )

    def why_full(self, peer: Peer | None) -> str:
        """What keeps a peer that is full, or, of None, all from beginning a call, for people."""
        if peer is None:
            return f"a call waits until another ends: {self._load.calls} run, as many as may (concurrency)"
        of = f"of concurrency={self._most}"
        if self._user_has_too_many(peer.user):
            calls = f"{peer.user.load.calls} of this user's processes run, all that one user may have {of}"
            return f"a call waits until another ends: {calls} (Limits.user_share)"
        if self._has_too_many(peer):
            calls = f"{peer.load.calls} of this process run, all that it may have {of} for now"
            return f"a call waits until another ends: {calls} (Limits.process_share)"
        return "a call waits: those that run have brought all that they may (Limits.begun_bytes, RLIMIT_NOFILE)"

    def forget_all(self) -> None:
        """Nothing runs any more, nor ever goes on: closes what came with calls that have not begun, or not ended."""
        for handler in tuple(self.handlers):
            self._never_ends(handler)

    def _never_ends(self, handler: Handler) -> None:
        """Counts a call no more that is not run, or not to its end, and closes what came with it."""
        channel = self.handlers.pop(handler)
        channel.handler = None
        self._uncount(handler, channel.peer)
        handler.close()
        if channel.state is State.ENDED:
            self.outlived(channel)

    def insist_all(self) -> None:
        """Tells all that run to end, also those that were told before."""
        for handler in tuple(self.handlers):
            handler.insist()

    def in_progress(self) -> str:
        """What runs now, for people; empty if nothing does."""
        names = list(dict.fromkeys(handler.where for handler in self.handlers))
        if not names:
            return ""
        more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        return f"{', '.join(names[:_NAMED])}{more}"
