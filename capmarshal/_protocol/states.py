"""The states of a channel.

At its server, a channel carries one call at a time.  Between two calls it is IDLE.  A call that comes in one record is
RUNNING until it is answered; nearly all are answered in the turn that brought them, so that a channel is IDLE, RUNNING,
IDLE.  The other states are where a call leaves that way:

*On its way in.*  A call that is too long for one record is announced.  It may come at once (RECEIVING), or its peer has
as much on its way as it may (QUEUED), or it is more than the entrypoint takes: that is answered before it has come, and
what its client sent of it meanwhile is passed over (REFUSED).

*On its way out.*  First what the call owned is closed, which may take somebody else's time (CLOSING).  Then the answer
is sent as far as there is room: in the client's queue (SENDING: the kernel tells when there is more), in what the
client lets come (AWAITING_GO: it says so), or in what may be in flight for a peer or for all (AWAITING_ROOM: tried
again after a while).  When all of it is sent, the results are closed, too (SETTLING), and the channel is IDLE again.

*Beside others.*  The method of an event loop's entrypoint awaits while others run (HANDLED): its channel is watched
meanwhile.  Its client's end ends it, and so does whatever else its client says, as after Ctrl-C: the method is told to
end, and the channel ends at once.  What was said is not read, so that its client says it again on a new channel, and
does not wait for a method that takes its time to end.

A client that sends another call before it has its answer has given the first one up (ABANDON).  A channel may END at
any time.  Besides, a peer may be held back: what its channels bring then waits, in whatever state they are.  That is
its peer's state, not the channel's.

The table is data: whatever is not in it cannot happen, and :meth:`capmarshal._server.channels.Channels.move`, the one
place where states change, refuses it.  The diagram in the documentation is drawn from it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class State(Enum):
    """What a channel is in."""

    IDLE = auto()
    RECEIVING = auto()
    QUEUED = auto()
    REFUSED = auto()
    RUNNING = auto()
    HANDLED = auto()
    CLOSING = auto()
    SENDING = auto()
    AWAITING_GO = auto()
    AWAITING_ROOM = auto()
    SETTLING = auto()
    ENDED = auto()

    # Members are what they are: Enum's own is Python code, and asked several times in each call.
    __hash__ = object.__hash__


class Event(Enum):
    """What happens to it."""

    BEGIN = "a long call is announced, and may come"
    QUEUE = "a long call is announced, and has to wait for its peer's share"
    ADMIT = "its peer's share is free"
    CALL = "a whole call has come, or one is to be refused"
    HANDLE = "its method runs beside others"
    RAN = "the call has run; what it owned is being closed"
    FULL = "the client's queue is full"
    PART = "a part is sent, and the client is to say when it goes on"
    TOO_MANY = "no more descriptors may be in flight"
    SENT = "the answer is sent, or nobody wants it"
    SENT_EARLY = "likewise, and parts of the call may still be on their way"
    SETTLE = "likewise; the results are being closed"
    ABANDON = "the client sent another call"
    END = "the channel ends"

    # Members are what they are, as State's are.
    __hash__ = object.__hash__


_S, _E = State, Event

_SENT: Final = {_E.SENT: _S.IDLE, _E.SENT_EARLY: _S.REFUSED, _E.END: _S.ENDED}
# Wherever an answer is tried to be sent.
_SENDING: Final = {
    **_SENT,
    _E.FULL: _S.SENDING,
    _E.PART: _S.AWAITING_GO,
    _E.TOO_MANY: _S.AWAITING_ROOM,
    _E.SETTLE: _S.SETTLING,
}
_BETWEEN_CALLS: Final = {_E.CALL: _S.RUNNING, _E.BEGIN: _S.RECEIVING, _E.QUEUE: _S.QUEUED, _E.END: _S.ENDED}

TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    _S.IDLE: _BETWEEN_CALLS,
    _S.RECEIVING: {_E.CALL: _S.RUNNING, _E.ABANDON: _S.IDLE, _E.END: _S.ENDED},
    _S.QUEUED: {_E.ADMIT: _S.RECEIVING, _E.END: _S.ENDED},
    _S.REFUSED: _BETWEEN_CALLS,
    _S.RUNNING: {**_SENDING, _E.RAN: _S.CLOSING, _E.HANDLE: _S.HANDLED},
    _S.HANDLED: {**_SENDING, _E.RAN: _S.CLOSING},
    _S.CLOSING: _SENDING,
    _S.SENDING: _SENDING,
    _S.AWAITING_GO: {**_SENDING, _E.ABANDON: _S.IDLE},
    _S.AWAITING_ROOM: _SENDING,
    _S.SETTLING: _SENT,
    _S.ENDED: {},
}

# Where the next record is read.
READS: Final = frozenset({_S.IDLE, _S.RECEIVING, _S.REFUSED, _S.AWAITING_GO})
# Where that record begins a call or goes on with one: not read while its peer is held back.
CALLS: Final = frozenset({_S.IDLE, _S.RECEIVING, _S.REFUSED})
# Where no call is in progress: such a channel can be given up, and its client knocks again when it has something to
# say.
SPARE: Final = frozenset({_S.IDLE, _S.REFUSED})
# Where the kernel is asked to report room for more of the answer.
WRITES: Final = frozenset({_S.SENDING})
# Where nothing is read, and it is reported that something has come, or that the channel has ended.
WATCHES: Final = frozenset({_S.HANDLED})
# Where an answer waits for its reader.
UNREAD: Final = frozenset({_S.SENDING, _S.AWAITING_GO, _S.AWAITING_ROOM})
# Where a call runs, or has run, and has not ended.
ANSWERING: Final = UNREAD | {_S.RUNNING, _S.HANDLED, _S.CLOSING, _S.SETTLING}
# Where a call has not run: giving the channel up loses nothing, since its client repeats the call.
UNBEGUN: Final = frozenset({_S.RECEIVING, _S.QUEUED})
