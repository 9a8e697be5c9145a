"""What a record on a channel is to its server: a call to run, a piece of one, a word about an answer, or nonsense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._descriptors import inbox, reaper
from capmarshal._kernel.native import lib
from capmarshal._protocol import wire
from capmarshal._protocol.faults import Code
from capmarshal._protocol.states import SPARE, Event, State
from capmarshal._server.answer import Answer, fail
from capmarshal._server.dispatch import Received, Unanswerable

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._kernel.native import CData
    from capmarshal._server.answers import Answers
    from capmarshal._server.arrivals import Arrivals
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel
    from capmarshal._server.closings import Closings
    from capmarshal._server.dispatch import Dispatcher
    from capmarshal._server.endings import Endings
    from capmarshal._server.handler import Handler


class Records:
    """Deals with the records in the inbox of one server.

    Args:
        turn: the ``struct cm_turn`` whose inbox it is.
        received: that inbox.
        channels: whose they are.
        arrivals: puts long calls together.
        answers: sends the answers.
        closings: closes what came for nobody.
        dispatcher: runs the calls.
        endings: of channels.
        returned: asked after each call: whether its answer is wanted, since the server was not closed meanwhile.

    Attributes:
        handle: has a call go on beside others.
    """

    handle: Callable[[Handler, Channel], None]

    def __init__(
        self,
        turn: CData,
        received: Inbox,
        channels: Channels,
        arrivals: Arrivals,
        answers: Answers,
        closings: Closings,
        dispatcher: Dispatcher,
        *,
        endings: Endings,
        returned: Callable[[], bool],
    ) -> None:
        self._turn = turn
        self._inbox = received
        self._channels = channels
        self._arrivals = arrivals
        self._answers = answers
        self._closings = closings
        self._dispatcher = dispatcher
        self._endings = endings
        self._returned = returned

    def any(self, channel: Channel | None) -> None:
        """Deals with the record in the inbox, whatever it is."""
        lost = self._inbox.struct.lost
        why = ""
        if lost & lib.CM_LOST_DESCRIPTORS:
            why = inbox.why_lost()
            # What fills the table may be a call that never comes whole: the next one finds room.
            self._endings.give_up_hoard(spared=channel)
        received = Received(self._inbox.data(), self._inbox.steal(), why, bool(lost & lib.CM_LOST_BYTES))
        if channel is None:
            reaper.close([received.descriptors])
            return
        if channel.state not in SPARE or wire.is_of_parts(received.data):
            whole = self._in_parts(channel, received)
            if whole is None:
                return
            received = whole
        self._call(channel, received)

    def assembled(self, channel: Channel | None) -> None:
        """Runs the long call that C has put together."""
        if channel is not None and channel.assembly is not None:
            self._call(channel, self._arrivals.whole(channel, channel.assembly))

    def _call(self, channel: Channel, received: Received) -> None:
        """Runs a call that has come with all that belongs to it, and sends its answer."""
        channel.refused = None
        self._channels.move(channel, Event.CALL)
        try:
            answer = self._dispatcher.dispatch(received, channel)
        except Unanswerable as reason:
            self._closings.close(channel.peer, [received.descriptors])
            # In words: whoever keeps the log's records must not keep what an exception's traceback holds.
            self._endings.drop(channel, str(reason))
        else:
            self.finish(channel, answer)

    def finish(self, channel: Channel | None, answer: Answer | Handler) -> None:
        """Ends a call here and now, or has it go on: its channel may have ended while it ran, or the server.

        Raises:
            KeyboardInterrupt, SystemExit: that its method raised, and that are to end the service.
        """
        if self._turn.epoll < 0:
            # The method forked, and this is the child: the client is the parent's.
            answer.close_here() if isinstance(answer, Answer) else answer.close()
        elif not self._returned() or channel is None or channel.state is State.ENDED:
            answer.close()
        elif isinstance(answer, Answer):
            self._answers.deliver(channel, answer)
        else:
            self.handle(answer, channel)
        if isinstance(answer, Answer):
            answer.let_escape()

    def reply_beside(self, channel: Channel, call_id: int, payload: bytes) -> bool:
        """Sends a reply, where nothing else is to be done for it; False: it was not, and is for :meth:`finish`."""
        return self._returned() and self._channels.reply_beside(channel, call_id, payload)

    def _in_parts(self, channel: Channel, received: Received) -> Received | None:
        """Deals with a record of a conversation in parts; the whole call, if this was the end of it."""
        try:
            record = wire.unpack(received.data)
            if isinstance(record, wire.Part):
                go, whole = self._arrivals.part(channel, record, received)
                # There is room for it: the client has nothing else to read.
                if go and channel.send(wire.pack_go(record.id)) != 0:
                    raise wire.Malformed("it takes no word that the next part may come", record.id)
                return whole
        except wire.Malformed as malformed:
            self._closings.close(channel.peer, [received.descriptors])
            self._endings.drop(channel, str(malformed))
            return None
        if isinstance(record, wire.Go):
            self._closings.close(channel.peer, [received.descriptors])
            if channel.outbox is not None and channel.outbox.call_id == record.id:
                self._answers.proceed(channel)
            return None
        # Another call: whatever was not finished before it, in either direction, the client has abandoned.
        self._abandon(channel)
        if not isinstance(record, wire.Begin):
            return received
        self._closings.close(channel.peer, [received.descriptors])
        refusal = self._arrivals.begin(channel, record)
        if refusal:
            self._channels.move(channel, Event.CALL)
            self._answers.deliver(channel, fail(record.id, Code.TOO_BIG, refusal))
        return None

    def _abandon(self, channel: Channel) -> None:
        if channel.state in (State.AWAITING_GO, State.RECEIVING):
            self._arrivals.end(channel)
            self._answers.abandon(channel)
            self._channels.move(channel, Event.ABANDON)
