"""Calls whose methods run beside others, in an event loop: how many there may be, and how each ends.

What exceeds the bounds is not read: it waits in its channel, and costs this process nothing.  C sets it aside
(csrc/cm_ring.h), and takes one in when one may begin, of each peer in its turn.  Calls of this process's own are
exempt: the method that makes one has its place already, and would wait for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._kernel.native import lib
from capmarshal._protocol.states import Event, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._kernel.native import CData
    from capmarshal._server.answer import Answer
    from capmarshal._server.answers import Answers
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel, Load, Peer
    from capmarshal._server.endings import Endings
    from capmarshal._server.handler import Handler
    from capmarshal._server.records import Records

# Of all calls that may run, one process leaves so many to others: one that makes calls which never end is not alone.
_LEFT_TO_OTHERS = 1 / 8


class Handling:
    """The calls of one server whose methods run beside others.

    Args:
        ring: the ``struct cm_ring``.
        channels: that they come by.
        records: knows what becomes of an answer.
        answers: sends them.
        endings: of channels.
        concurrency: how many may run.
        rouse: has the loop take a turn.

    Attributes:
        handlers: those that run, whether anybody wants their answers or not, in the order in which they began; and by
            which channel each came.
    """

    def __init__(
        self,
        ring: CData,
        channels: Channels,
        records: Records,
        answers: Answers,
        endings: Endings,
        concurrency: int,
        rouse: Callable[[], None],
    ) -> None:
        self.handlers: dict[Handler, Channel] = {}
        self._ring = ring
        self._channels = channels
        self._records = records
        self._answers = answers
        self._endings = endings
        self._rouse = rouse
        self._shares = channels.shares
        self._most = concurrency
        self._most_of_peer = concurrency - int(concurrency * _LEFT_TO_OTHERS)
        # What all may have together without that anybody has too much.
        self._few_bytes = min(self._shares.begun_bytes)
        # Of peers that are not exempt; and those of them that have their part.
        self._load: Load = channels.load
        self._full: set[Peer] = set()
        records.handle, channels.placed = self.begin, self._placed
        endings.before(self._forget)

    def begin(self, handler: Handler, channel: Channel) -> None:
        """Counts a call that is about to run, and has its channel watched."""
        begun = Event.HANDLE if channel.state is State.RUNNING else Event.CALL
        if not self._channels.move(channel, begun, None if begun is Event.HANDLE else Event.HANDLE):
            handler.close()
            self._endings.drop(channel, "the kernel has no memory to watch it")
            return
        channel.handler = handler
        self.handlers[handler] = channel
        self._count(handler, channel.peer)
        handler.start()

    def _count(self, handler: Handler, peer: Peer) -> None:
        if peer.own:
            return
        self._book(handler, peer, 1)
        if self._load.calls == self._most:
            lib.cm_fill(self._ring, 0, 1)
        if peer not in self._full and self._too_much(peer):
            self._full.add(peer)
            lib.cm_fill(self._ring, peer.index, 1)

    def _book(self, handler: Handler, peer: Peer, times: int) -> None:
        """Counts one more, or, -1 times, one less."""
        own, user, whole = peer.load, peer.user.load, self._load
        own.calls += times
        whole.calls += times
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
        # One whose client has just ended it is told of as well.
        if channel.state is State.HANDLED and channel.has_come():
            self._channels.move(channel, Event.ABANDON)
            if channel.handler is not None:
                channel.handler.cancel()

    def _forget(self, channel: Channel) -> None:
        """A channel is about to end, and with it what its method does."""
        handler, channel.handler = channel.handler, None
        if handler is not None:
            handler.cancel()

    def end(self, handler: Handler, answer: Answer, *, cut_off: bool) -> None:
        """Ends a call whose method has ended.

        Args:
            handler: the call.
            answer: to it, taken; it is not sent where nobody wants it.
            cut_off: the method was kept from answering, as all are: its client finds the server gone.
        """
        channel = self.handlers.pop(handler)
        try:
            channel.handler = None
            self._uncount(handler, channel.peer)
            if cut_off:
                answer.close()
                self._endings.forget(channel)
            elif channel.state is State.DISCARDED:
                self._answers.settle(channel, [*answer.arguments, *answer.results])
            else:
                self._records.finish(channel, answer)
            self._rouse()
        except Exception as error:  # noqa: BLE001 - a fault of ours is one channel's, not the service's
            self._endings.fault(channel, error)

    def _placed(self, peer: Peer) -> None:
        # One that had no channel any more, and methods that have not ended all the same.
        if peer in self._full:
            lib.cm_fill(self._ring, peer.index, 1)

    def _uncount(self, handler: Handler, peer: Peer) -> None:
        if peer.own:
            return
        self._book(handler, peer, -1)
        if self._load.calls == self._most - 1:
            lib.cm_fill(self._ring, 0, 0)
        for full in tuple(self._full) if self._full else ():
            if not self._too_much(full):
                self._full.discard(full)
                if full.index:
                    lib.cm_fill(self._ring, full.index, 0)

    def _too_much(self, peer: Peer) -> bool:
        """Whether calls of a peer have as much as may be: one by itself always may."""
        own, whole = peer.load, self._load
        if self._most > own.calls >= self._most_of_peer:
            return True
        if whole.size <= self._few_bytes and not whole.descriptors:
            return False
        may, user = self._shares.begun_bytes, peer.user.load
        if own.size and (own.size > may.process or user.size > may.user or whole.size > may.whole):
            return True
        if not own.descriptors:
            return False
        # Asks the kernel.
        may = self._shares.in_calls
        return own.descriptors > may.process or user.descriptors > may.user or whole.descriptors > may.whole

    def forget_all(self) -> None:
        """Nothing runs any more: closes what came with calls that have never begun."""
        for handler, channel in tuple(self.handlers.items()):
            del self.handlers[handler]
            self._uncount(handler, channel.peer)
            handler.close()

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


# Of many methods that run, so many are named.
_NAMED = 5
