"""A call that goes in parts: sent bit by bit, and listened for meanwhile.

The server may refuse the call before it has all of it, and it may have to wait for its client to receive something, so
whoever sends looks into its own queue before each part and whenever it has to wait.
"""

from __future__ import annotations

import errno
import select
import time
from typing import TYPE_CHECKING

from capmarshal._client.conversation import PIPE_ENDED, Event
from capmarshal._client.unanswered import NeverRan, TooLate
from capmarshal._kernel.errors import ProtocolError, error_for
from capmarshal._kernel.native import NOW, lib
from capmarshal._kernel.waiting import Patience, Wait
from capmarshal._protocol.wire import Fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._client.conversation import Conversation, Whole
    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.waiting import Steps
    from capmarshal._protocol.parts import Gathered, Piece

_SENDING = "sending a call in parts"
# So many that nobody waits for are passed over at a time; an honest server sends none.
_GO_MAX = 16


def send_in_parts(
    near: Private,
    conversation: Conversation,
    call_id: int,
    record: Gathered,
    numbers: Sequence[int],
    deadline: int,
) -> Steps[Whole | None]:
    """Sends a CALL in parts.

    Args:
        near: the client's end of the channel, borrowed.
        conversation: about the call.
        call_id: of the call.
        record: the CALL.
        numbers: of its descriptors, borrowed.
        deadline: until when all of it is to be sent.

    Returns:
        The server's refusal, if it said so before it had all of the call.

    Raises:
        NeverRan: the channel has ended, and the server has not had all of the call.
        TooLate, ProtocolError, TooManyInFlight, KernelError: as they say; half a call is on its way then.
    """
    for piece in record.cut(call_id, numbers):
        refusal = yield from _send(near, conversation, record, piece, deadline)
        if refusal is None and piece.waits:
            refusal = yield from _await_go(conversation, deadline)
        if refusal is not None:
            return refusal
    return None


def _send(
    near: Private, conversation: Conversation, record: Gathered, piece: Piece, deadline: int
) -> Steps[Whole | None]:
    """Sends one piece, waiting for room; or returns the refusal of the call, whose rest no server looks at."""
    patience: Patience | None = None
    while True:
        result = record.send(near.number, piece)
        if result == 0:
            return None
        if result in PIPE_ENDED:
            conversation.note_reset()
            refusal = yield from _refusal(conversation)
            if refusal is None:
                raise NeverRan
            return refusal
        if result == -errno.ETOOMANYREFS:
            patience = patience or Patience(deadline)
            if not (yield from patience.wait(near.number, select.POLLIN)):
                raise error_for(-result, _SENDING, "sendmsg(2), or ppoll(2)")
        elif result == -errno.EAGAIN:
            if not (yield Wait(near.number, select.POLLIN | select.POLLOUT, deadline)):
                raise TooLate("not sent whole: the server did not read", ran="no")
        elif result not in (lib.CM_HEARD, -errno.EINTR):
            raise error_for(-result, _SENDING, "sendmsg(2), or ppoll(2)")
        # What the server, or others, are waiting for may be that we receive: a late answer to an earlier call.
        refusal = yield from _refusal(conversation)
        if refusal is not None:
            return refusal
        if time.monotonic_ns() >= deadline:
            # Whatever else the server says meanwhile.
            raise TooLate("not sent whole: the server did not read", ran="no")


def _refusal(conversation: Conversation) -> Steps[Whole | None]:
    """What the server has said until now; None if it has not refused the call.

    Raises:
        NeverRan: the channel has ended.
        ProtocolError: the call was answered in another way, before it was sent.
    """
    for _ in range(_GO_MAX):
        event = yield from conversation.receive(NOW)
        if event is Event.NOTHING:
            return None
        # One that was not asked for says nothing.
        if event is not Event.GO:
            return _early(conversation, event)
    return None


def _await_go(conversation: Conversation, deadline: int) -> Steps[Whole | None]:
    """Waits until the server has received the last part; or returns its refusal of the call.

    Raises:
        TooLate: it did not receive the part in time.
        NeverRan, ProtocolError: as in :func:`_refusal`.
    """
    event = yield from conversation.receive(deadline)
    if event is Event.GO:
        return None
    if event is Event.NOTHING:
        raise TooLate("not sent whole: the server did not take all of it", ran="no")
    return _early(conversation, event)


def _early(conversation: Conversation, event: Event) -> Whole:
    """What is heard of a call that was not sent whole, and is neither GO nor nothing."""
    if event is not Event.ANSWERED:
        raise NeverRan
    assert conversation.whole is not None  # noqa: S101 - for the type checker: that is what it means
    record, descriptors = conversation.whole
    if not isinstance(record, Fail):
        raise ProtocolError("the server answered a call before it was sent")
    return record, descriptors
