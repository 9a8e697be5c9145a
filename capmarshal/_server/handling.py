"""Calls whose methods run beside others, in an event loop: how many there may be, and how each ends.

What exceeds the bounds is not read: it waits in its channel, and costs this process nothing.  The bound over all is C's
to keep (csrc/cm_turn.h), which takes one in when one has ended, of each peer in its turn.  A peer that has more than
its part is held back, as for whatever else it has too much of.  Calls of this process's own are exempt: the method that
makes one has its place already, and would wait for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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

# Why a peer is held back.
_HELD = "as many of its calls run as may"


class Handling:
    """The calls of one server whose methods run beside others.

    Args:
        turn: the ``struct cm_turn``.
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
        turn: CData,
        channels: Channels,
        records: Records,
        answers: Answers,
        endings: Endings,
        concurrency: int,
        rouse: Callable[[], None],
    ) -> None:
        self.handlers: dict[Handler, Channel] = {}
        self._turn = turn
        self._channels = channels
        self._records = records
        self._answers = answers
        self._endings = endings
        self._rouse = rouse
        self._shares = channels.shares
        self._most = concurrency
        self._most_of_peer = concurrency - int(concurrency * _LEFT_TO_OTHERS)
        # Of peers that are not exempt.
        self._load: Load = channels.load
        self._held: set[Peer] = set()
        records.handle = self.begin
        endings.before(self._forget)

    def begin(self, handler: Handler, channel: Channel) -> None:
        """Counts a call that is about to run, and has its channel watched."""
        if not self._channels.move(channel, Event.HANDLE):
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
        for load in (peer.load, peer.user.load, self._load):
            load.add(handler, 1)
        if self._load.calls >= self._most:
            self._turn.full = 1
        if self._too_much(peer):
            self._held.add(peer)
            self._channels.hold(peer, _HELD)

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

    def end(self, handler: Handler, answer: Answer) -> None:
        """Ends a call whose method has ended; takes the answer, which is not sent where nobody wants it."""
        channel = self.handlers.pop(handler)
        try:
            channel.handler = None
            self._uncount(handler, channel.peer)
            if channel.state is State.DISCARDED:
                self._answers.settle(channel, [*answer.arguments, *answer.results])
            else:
                self._records.finish(channel, answer)
            self._rouse()
        except Exception as error:  # noqa: BLE001 - a fault of ours is one channel's, not the service's
            self._endings.fault(channel, error)

    def _uncount(self, handler: Handler, peer: Peer) -> None:
        if peer.own:
            return
        for load in (peer.load, peer.user.load, self._load):
            load.add(handler, -1)
        if self._load.calls < self._most:
            self._turn.full = 0
        if self._held:
            for held in tuple(self._held):
                if not self._too_much(held):
                    self._held.discard(held)
                    self._channels.release(held, _HELD)

    def _too_much(self, peer: Peer) -> bool:
        """Whether calls of a peer have as much as may be: one by itself always may."""
        if peer.load.calls >= self._most_of_peer:
            return True
        own, user, whole = peer.load, peer.user.load, self._load
        for may, mine, users, alls in (
            (self._shares.in_calls, own.descriptors, user.descriptors, whole.descriptors),
            (self._shares.begun_bytes, own.size, user.size, whole.size),
        ):
            if mine and (mine > may.process or users > may.user or alls > may.whole):
                return True
        return False

    def forget_all(self) -> None:
        """Nothing runs any more: closes what came with calls that have never begun."""
        for handler, channel in tuple(self.handlers.items()):
            del self.handlers[handler]
            self._uncount(handler, channel.peer)
            handler.close()

    def cancel_all(self) -> None:
        """Tells all that run to end."""
        for handler in tuple(self.handlers):
            handler.cancel()

    def in_progress(self) -> str:
        """What runs now, for people; empty if nothing does."""
        names = list(dict.fromkeys(handler.where for handler in self.handlers))
        if not names:
            return ""
        more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        return f"{', '.join(names[:_NAMED])}{more}"


# Of many methods that run, so many are named.
_NAMED = 5
