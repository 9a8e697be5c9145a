"""One turn of a server: a reply and the wait for the next event, and what is to be done about that event."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Protocol

from capmarshal._descriptors import reaper
from capmarshal._kernel.errors import error_for
from capmarshal._kernel.native import (
    DESCRIPTORS_MAX,
    FOREVER,
    NOW,
    NULL,
    TOLD_DATA,
    TOLD_IN_ORDER,
    TOLD_WHOLE,
    UNLIMITED,
    ffi,
    lib,
)
from capmarshal._protocol import wire
from capmarshal._protocol.states import Event, State
from capmarshal._server.answer import Answer, reply
from capmarshal._typed.long import Long

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._kernel.native import CData
    from capmarshal._server.answers import Answers
    from capmarshal._server.calls import Calls
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.endings import Endings
    from capmarshal._server.handler import Handler
    from capmarshal._server.leaving import Leaving
    from capmarshal._server.records import Records
    from capmarshal._server.timers import Timers

# Looked up once: an attribute of cffi's is 40 ns, and these are wanted in each turn.
_cm_reply_wait, _CM_CALL_KEY = lib.cm_reply_wait, lib.CM_CALL_KEY
_CM_DATA, _CM_DATA_LIMITED, _CM_WHOLE, _CM_NOTHING = lib.CM_DATA, lib.CM_DATA_LIMITED, lib.CM_WHOLE, lib.CM_NOTHING
_BRINGS_DESCRIPTORS = (lib.CM_IN_ORDER, _CM_WHOLE)

# Turns between two looks at who has come, while somebody waits for one, where none takes long.
_APART = 16

# How long a peer's descriptors wait for the table to have room, until they are read and lost.
_SCARCE_PATIENCE = 1_000_000_000
_SCARCE = "the descriptor table is full, and something is being closed"


class Waits(Protocol):
    """Says until when a turn waits."""

    next: int


class _Never:
    """Says that it does not."""

    next = NOW


class Turns:
    """Takes the turns of one server.

    Args:
        turn: the ``struct cm_turn``.
        received: its inbox.
        channels: of the server.
        records: deals with what is no call in one record.
        answers: sends what does not go with the next turn.
        endings: of channels.
        timers: of the loop.
        calls: runs them.
        leaving: what leaves with the next reply.

    Attributes:
        idle: a turn has found that nobody has anything; set, and taken back by whoever asks.
        told: whoever has turns taken has something else to do, for ever.
    """

    def __init__(
        self,
        turn: CData,
        received: Inbox,
        channels: Channels,
        records: Records,
        answers: Answers,
        endings: Endings,
        timers: Timers,
        calls: Calls,
        leaving: Leaving,
    ) -> None:
        self._turn = turn
        # Where C says what they are: an attribute of cffi's costs twice as much.
        self._table, self._payload, self._deadline = (
            ffi.addressof(turn, member) for member in ("table", "payload", "deadline")
        )
        self._inbox = received
        self._channels = channels
        self._records = records
        self._answers = answers
        self._endings = endings
        self._timers = timers
        # Says until when a turn waits.
        self._until: Waits = timers
        self.idle = self.told = False
        self._calls, self._run = calls, calls.run
        self._leaving, self._leave = leaving, leaving.take
        turn.most = min(channels.shares.max_descriptors, DESCRIPTORS_MAX)
        self._spoken: Callable[[Channel], None] = lambda _channel: None
        # The payload of the reply that is sent with the next turn.
        self._reply: bytes | None = None

    def never_wait(self, spoken: Callable[[Channel], None]) -> None:
        """Has no turn wait, or poll: whoever takes them does.  None takes long, so not each has to look who has come.

        Args:
            spoken: told of a channel on which something has come, where that is watched.
        """
        self._until, self._spoken = _Never(), spoken
        self._turn.poll, self._turn.apart = 0, _APART

    @property
    def reply_is_due(self) -> bool:
        """Whether a reply is to be sent with the next turn."""
        return self._reply is not None

    def take(self) -> None:
        """Sends the reply that is due and handles one event: a call that came in one record is run.

        And then the next one, where that was its end, nothing else is to be done at a certain time, and nobody has
        told that there is: to return, and to be called again, costs as much as the rest of it.

        Raises:
            KeyboardInterrupt, SystemExit: that are to end the service.
            KernelError: of epoll_pwait(2).
        """
        turn, inbox, waits, run, leave = self._turn, self._inbox, self._until, self._run, self._leave
        data, payload_at = inbox.bytes, self._payload
        # What was called last; to see in C that it is again costs less than to take it out of the record.
        key, key_size, known_end = b"", 0, _CM_CALL_KEY
        until = UNLIMITED if waits.next is FOREVER else waits.next
        while True:
            # Nothing of the last call is kept while the next one is waited for, but its reply.
            payload = None
            reply = self._reply
            if reply is None:
                event = _cm_reply_wait(turn, NULL, 0, key, key_size, until)
            else:
                size = len(reply)
                # Ctrl-C raises where a call ends: not between this and the next, after which C knows whether it is
                # sent.
                self._reply = None
                event = _cm_reply_wait(turn, reply, size, key, key_size, until)
            try:
                came = table = None
                if event < TOLD_DATA:
                    if event < 0:
                        break
                    start = end = payload_at[0]
                    if event == _CM_DATA:
                        deadline = FOREVER
                    elif event == _CM_DATA_LIMITED:
                        deadline = self._deadline[0]
                    elif event in _BRINGS_DESCRIPTORS:
                        came, end, deadline = inbox, self._table[0], self._deadline[0]
                        if deadline == FOREVER:
                            # The same object: what is in force already need not be put in force.
                            deadline = FOREVER
                        if event == _CM_WHOLE:
                            table = data[end:start]
                    else:
                        self._other(event, reply)
                        return
                    key, payload = data[_CM_CALL_KEY:end], data[start : inbox.size[0]]
                    key_size, known_end = len(key), end
                elif event < TOLD_IN_ORDER:
                    payload, deadline = data[known_end:event], FOREVER
                else:
                    came, start, deadline = inbox, payload_at[0], FOREVER
                    if event < TOLD_WHOLE:
                        payload = data[start : event - TOLD_IN_ORDER]
                    else:
                        table, payload = data[known_end:start], data[start : event - TOLD_WHOLE]
                answer = run(turn, key, payload, deadline, came, leave, table)
                if type(answer) is not bytes:
                    self._go_on(answer, came)  # type: ignore[arg-type]  # it is no bytes
                    return
                self._reply = answer
                if table is not None:
                    # What no line of it was of is being closed.
                    turn.scarce = reaper.behind()
            except Exception as error:  # noqa: BLE001 - a fault of ours is one channel's, not the service's
                self._fault(error)
                return
            if self.told or waits.next is not FOREVER:
                return
            until = UNLIMITED
        if event != -errno.EINTR:
            raise error_for(-event, "waiting for calls", "epoll_pwait(2)")

    def _go_on(self, answer: Long | Answer | Handler, came: Inbox | None) -> None:
        """Ends the call that has just been run, where its reply is long or not all, or has it go on beside others."""
        if came is None and not isinstance(answer, Answer):
            # Nothing has come with it, and nothing was to leave.
            self._finish(reply(self._turn.id, answer) if isinstance(answer, Long) else answer)
            return
        assert not isinstance(answer, Long)  # noqa: S101 - that is of a call with which nothing came
        self._leaving.drop()
        self._finish(answer)
        # What no line of the table was of is being closed, too.
        self._turn.scarce = reaper.behind()

    def _other(self, event: int, reply: bytes | None) -> None:
        """Deals with an event that is no call, or one to be looked at closer; ``reply`` was to be sent before."""
        slot = self._turn.slot
        channel = self._channels.get(slot)
        if event == lib.CM_UNSENT:
            self._reply = reply
            self.deliver_reply()
        elif event == lib.CM_UNSETTLED:
            self._settle()
        elif event == lib.CM_RECORD:
            self._record(self._records.any)
        elif event == lib.CM_ASSEMBLED:
            self._record(self._records.assembled)
        elif event == _CM_NOTHING:
            self.idle = True
        elif channel is None:
            if event == lib.CM_READY and slot in (ready := self._channels.slots.ready):
                ready[slot]()
        elif event == lib.CM_READY:
            self._answers.proceed(channel)
        elif event == lib.CM_ENDED:
            self._endings.forget(channel)
        elif event == lib.CM_SCARCE:
            self._scarce(channel.peer)
        elif event == lib.CM_SPOKEN:
            self._spoken(channel)

    def _fault(self, error: Exception) -> None:
        """Ends the channel in whose turn something went wrong that no record should be able to bring about."""
        turn = self._turn
        # It may be a signal handler's, raised before anybody took what came.
        self._leaving.drop()
        reaper.close([self._inbox.steal()])
        self._endings.fault(self._channels.get(turn.slot), error)
        turn.taken = 0

    def _finish(self, answer: Answer | Handler) -> None:
        """Ends the call that was taken last, where the answer is no mere reply, or has it go on beside others."""
        turn = self._turn
        channel = self._channels.get(turn.taken)
        # One that is ending is found here after Ctrl-C.
        if channel is not None and channel.state is not State.ENDED and isinstance(answer, Answer):
            self._channels.move(channel, Event.CALL)
        # Not before: what Ctrl-C leaves is either taken or running, and ended for that.
        turn.taken = 0
        self._records.finish(channel, answer)

    def _record(self, deal: Callable[[Channel | None], None]) -> None:
        """Has a record dealt with that is more than a call in one record, or not as it should be."""
        turn = self._turn
        deal(self._channels.get(turn.slot))
        turn.taken = 0
        turn.scarce = reaper.behind()

    def deliver_reply(self) -> None:
        """Sends the reply that is due, if one is, in another way than with the next turn."""
        turn, reply = self._turn, self._reply
        # First: after Ctrl-C in the middle, nobody knows how far it got, and it must not begin anew.
        self._reply = None
        if reply is not None:
            arguments, results = self._leaving.steal()
            numbers = results.numbers()
            data = wire.pack_reply(turn.id, wire.PLAIN[: len(numbers)], len(numbers), b"")
            self._finish(Answer(turn.id, data, numbers, [arguments], [results], rest=reply))

    def _settle(self) -> None:
        """The reply is sent, and what went with it is not closed yet."""
        turn, results = self._turn, self._leaving.steal_results()
        channel = self._channels.get(turn.taken)
        if channel is None:
            reaper.close([results])
        else:
            self._channels.move(channel, Event.CALL)
            self._answers.settle(channel, [results])
        turn.taken = 0

    def _scarce(self, peer: Peer) -> None:
        """Leaves a record unread whose descriptors would be lost, until what fills the table is closed."""
        if _SCARCE not in peer.held:
            self._timers.after(_SCARCE_PATIENCE // 100, partial(self._scarce_no_more, peer, 100))
            self._channels.hold(peer, _SCARCE)

    def _scarce_no_more(self, peer: Peer, times: int) -> None:
        self._turn.scarce = times > 1 and reaper.behind()
        if self._turn.scarce:
            self._timers.after(_SCARCE_PATIENCE // 100, partial(self._scarce_no_more, peer, times - 1))
        else:
            self._channels.release(peer, _SCARCE)

    def tidy(self) -> None:
        """Leaves nothing half done, also where Ctrl-C came between two steps: nobody waits for what will not come.

        Nobody knows how far each channel got, so all end: their clients knock anew, and repeat what was not read.
        """
        turn = self._turn
        self.deliver_reply()
        self._leaving.drop()
        self._calls.end_all()
        for channel in self._channels.all():
            self._endings.forget(channel)
        turn.taken = 0
        self._channels.count_anew()
        self._channels.hanging_up.now()
        reaper.close([self._inbox.steal()])
