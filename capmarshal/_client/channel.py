"""A channel, as its client uses it: where a call is made in one crossing into C, if all goes well.

That is for threads.  In an event loop a call is steps, and takes two crossings; what is rare is written once, as steps,
for both.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from struct import pack
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._client.conversation import PIPE_ENDED, Conversation, Event
from capmarshal._client.sending import send_in_parts
from capmarshal._client.unanswered import NeverRan, TooLate
from capmarshal._descriptors import reaper
from capmarshal._descriptors.inbox import borrow, borrow_idle, give_back, record_room
from capmarshal._kernel.errors import ProtocolError, error_for
from capmarshal._kernel.ints import MANY, array_of
from capmarshal._kernel.lifetime import when_gone
from capmarshal._kernel.native import (
    DESCRIPTORS_MAX,
    FOREVER,
    NOW,
    NULL,
    TIMED_OUT,
    TOLD_DATA,
    TOLD_IN_ORDER,
    TOLD_WHOLE,
    UNLIMITED,
    ffi,
    lib,
)
from capmarshal._kernel.polling import poll_nanoseconds
from capmarshal._kernel.waiting import Patience, Wait, drive
from capmarshal._protocol.parts import PART_BYTES, Gathered
from capmarshal._protocol.wire import (
    HEAD_SIZE,
    NO_LIMIT,
    Malformed,
    Reply,
    pack_call,
    pack_table,
    plain,
    unpack,
    unpack_key,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._client.conversation import Whole
    from capmarshal._descriptors.closing_jobs import Sender
    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.native import CData
    from capmarshal._kernel.waiting import Steps
    from capmarshal._protocol.wire import Entry
    from capmarshal._typed.long import Payload

# Looked up once: an attribute of cffi's is 40 ns, and these are wanted in each call.
cm_call, _cm_send_call, _cm_answer = lib.cm_call, lib.cm_send_call, lib.cm_answer
_CM_MAKE_TABLE, _CM_LINE = lib.CM_MAKE_TABLE, lib.CM_LINE

# struct timeval: for so long does a call sleep at first; see cm_call().
_BRIEF = pack("@ll", 0, lib.CM_BRIEF // 1000)
# What cm_answer() says where there is nothing yet, and it may not wait.
_NOT_YET = (-errno.EAGAIN, -errno.EINTR)

# An answer: a result's payload alone, or with its descriptors; these are plain ones, in order, where they are in an
# inbox, which is to be given back when they have been taken.
Answer: TypeAlias = "bytes | tuple[bytes, Inbox] | Whole"
# The lines of a call's table; None where there is one for each descriptor, in their order.
Entries: TypeAlias = "Sequence[Entry] | None"


class Channel:
    """A private socket to one entrypoint; lent to one call at a time.

    Args:
        near: the client's end, taken.  Open as long as the channel can be reached, unless it is dropped.
        closing: to whose account the closing goes of what the server sends.

    Attributes:
        near: its socket, borrowed.
        caller: what C keeps of it.
        usable: another call may be made on it.
        watched: by which number an event loop knows it that watches it; 0: none does.
    """

    __slots__ = ("__weakref__", "_closing", "_room", "caller", "near", "usable", "watched")

    def __init__(self, near: Private, closing: Sender) -> None:
        self.near = near
        self._closing = closing
        self.caller = ffi.new("struct cm_caller *")
        when_gone(self.caller, _let_go, near, closing)
        self.caller.poll = poll_nanoseconds
        # Refused by a filter: then Ctrl-C that comes just when a call is sent is heard when that is answered.
        lib.lx_setsockopt(near.number, socket.SOL_SOCKET, socket.SO_RCVTIMEO, _BRIEF, len(_BRIEF))
        self._room = self.caller.room = record_room(near.number)
        self.usable = True
        self.watched = 0

    def go_on(
        self,
        inbox: Inbox,
        result: int,
        key: bytes,
        payload: Payload,
        entries: Entries,
        numbers: Sequence[int],
        deadline: int,
    ) -> Answer:
        """The answer to a call of a thread's that C has begun, and that is more than data which came at once.

        Args:
            inbox: lent to the call; given back here.
            result: what C has said of it.
            key: what is called, as it stands in the record; see :func:`capmarshal._protocol.wire.unpack_key`.
            payload: the arguments.
            entries: the table that they refer to.
            numbers: the descriptors that go along, borrowed.
            deadline: until when.

        Returns:
            The answer, whose descriptors are the caller's.

        Raises:
            NeverRan: the channel has ended, and the call was not read.
            Disconnected: the channel has ended, and the call may have been run.
            TooLate, DescriptorsLost, TooLarge, ProtocolError, KernelError: as they say.
        """
        patience: Patience | None = None
        while result < 0:
            if not self.caller.sent:
                if result == -errno.EMSGSIZE:
                    give_back(inbox)
                    return drive(self._in_parts(key, payload, entries, numbers, deadline, None))
                patience = patience or Patience(deadline)
                drive(self._look_after_unsent(inbox, result, patience))
                body, size, attached = with_table(payload, entries, numbers)
                result = cm_call(self.near.number, self.caller, key, body, size, attached, inbox.struct, deadline)
            elif result == -errno.EINTR:
                # Signal handlers have run.
                result = _cm_answer(self.near.number, self.caller, inbox.struct, 0, deadline)
            else:
                break
        answer = _at_once(inbox, result)
        return drive(self._at_length(inbox, result, deadline, blocks=True)) if answer is None else answer

    def send_now(self, key: bytes, payload: bytes, travels: int) -> bool:
        """Sends a call of data alone, if it fits into one record and there is room for that now; whether it was sent.

        Then :meth:`heard` and :meth:`later` are for its answer; if not, :meth:`in_steps` tries again.
        """
        told = UNLIMITED if travels is FOREVER else travels
        return _cm_send_call(self.near.number, self.caller, key, payload, len(payload), NULL, told, NOW) == 0

    def heard(self, deadline: int, poll: int = 0) -> Answer | Steps[Answer] | None:
        """The answer to the call that was sent, or the steps to it, where something has come; else None.

        Args:
            deadline: until when these may take.
            poll: nanoseconds for which to look out for it at most.
        """
        # Not before: of many calls that wait, each would keep one.
        try:
            inbox = borrow_idle()
        except IndexError:
            inbox = borrow()
        result = _cm_answer(self.near.number, self.caller, inbox.struct, poll, NOW)
        if TOLD_DATA <= result < TOLD_IN_ORDER:
            data: bytes = inbox.bytes[HEAD_SIZE:result]
            give_back(inbox)
            return data
        if result in _NOT_YET:
            give_back(inbox)
            return None
        answer = _at_once(inbox, result)
        return self._at_length(inbox, result, deadline, blocks=False) if answer is None else answer

    def later(self, deadline: int) -> Steps[Answer]:
        """The steps to the answer to the call that was sent, of which nothing has come."""
        while (yield Wait(self.near.number, select.POLLIN, deadline)):
            heard = self.heard(deadline)
            if heard is not None:
                return heard if isinstance(heard, (bytes, tuple)) else (yield from heard)
        return (yield from self._at_length(borrow(), -errno.EAGAIN, deadline, blocks=False))

    def in_steps(
        self,
        key: bytes,
        payload: Payload,
        entries: Entries,
        numbers: Sequence[int],
        deadline: int,
        travels: int,
        poll: int,
    ) -> Steps[Answer]:
        """Makes one call in two crossings, between which others may run; what it takes, gives and raises, as go_on().

        Args:
            key: as there, and likewise the next four.
            payload: likewise.
            entries: likewise.
            numbers: likewise.
            deadline: likewise.
            travels: until when the server is told that it is waited for.
            poll: nanoseconds for which these look out for an answer at most before they wait.
        """
        near, caller = self.near, self.caller
        body, size, attached = with_table(payload, entries, numbers)
        patience: Patience | None = None
        while result := _cm_send_call(near.number, caller, key, body, size, attached, travels, NOW):
            if result == -errno.EMSGSIZE:
                return (yield from self._in_parts(key, payload, entries, numbers, deadline, travels))
            if result == -errno.EAGAIN and (yield Wait(near.number, select.POLLOUT, deadline)):
                continue
            patience = patience or Patience(deadline)
            yield from self._look_after_unsent(borrow(), result, patience)
        # Who is not to look out for it: it is not there yet.
        heard = self.heard(deadline, poll) if poll else None
        if heard is None:
            heard = self.later(deadline)
        return heard if isinstance(heard, (bytes, tuple)) else (yield from heard)

    def _at_length(self, inbox: Inbox, result: int, deadline: int, *, blocks: bool) -> Steps[Whole]:
        """The answer to the call that was sent, whatever has come of it first: see :meth:`Conversation.answer`."""
        conversation = Conversation(self.near, self.caller.id, inbox, self._closing, blocks=blocks)
        try:
            answer = yield from conversation.answer(deadline, result)
        finally:
            if conversation.over:
                self.drop()
        give_back(inbox)
        return answer

    def _look_after_unsent(self, inbox: Inbox, result: int, patience: Patience) -> Steps[None]:
        """Deals with a CALL that was not sent: returns when it is to be sent again.

        Raises:
            NeverRan, TooLate, KernelError: as they say.
        """
        if result in PIPE_ENDED or self.near.number < 0:
            # Or this process was forked, and the channel is its parent's.
            self.drop()
            raise NeverRan
        if result == -errno.ETOOMANYREFS and (yield from patience.wait(self.near.number, select.POLLIN)):
            # A late answer in our own queue counts too, and nobody else receives that.
            yield from self._receive_late(inbox)
        elif result in TIMED_OUT:
            raise TooLate("not sent: the server did not read", ran="no")
        elif result != -errno.EINTR:
            raise error_for(-result, "sending a call", "sendmsg(2), or ppoll(2)")

    def _receive_late(self, inbox: Inbox) -> Steps[None]:
        """Receives, and closes, what has come for earlier calls.

        Raises:
            NeverRan: the channel has ended.
            ProtocolError: the server has answered the call that was not sent.
        """
        conversation = Conversation(self.near, self.caller.id, inbox, self._closing)
        event = yield from conversation.receive(NOW)
        if event is not Event.NOTHING:
            conversation.abandon()
            self.drop()
            if event in (Event.UNREAD, Event.ENDED):
                raise NeverRan
            if conversation.whole is not None:
                reaper.close([conversation.whole[1]], self._closing)
            raise ProtocolError("the server answered a call before it was sent")

    def _in_parts(
        self,
        key: bytes,
        payload: Payload,
        entries: Entries,
        numbers: Sequence[int],
        deadline: int,
        travels: int | None,
    ) -> Steps[Whole]:
        """As the others, for what is too long for one record or has too many descriptors for one."""
        entries = plain(len(numbers)) if entries is None else entries
        self.caller.id += 1
        call_id, now = self.caller.id, time.monotonic_ns()
        badge, method = unpack_key(key)
        until = deadline if travels is None else travels
        left = NO_LIMIT if until == FOREVER else max(until - now, 0)
        head = pack_call(call_id, badge, left, now, method, entries, len(numbers), b"")
        buffers = (head, payload) if isinstance(payload, bytes) else (head, payload.start, payload.end)
        record = Gathered(buffers, min(self._room - HEAD_SIZE, PART_BYTES), listens=True)
        inbox = borrow()
        conversation = Conversation(self.near, call_id, inbox, self._closing, blocks=travels is None)
        try:
            try:
                answer = yield from send_in_parts(self.near, conversation, call_id, record, numbers, deadline)
            except BaseException:
                # Half a call is on its way.
                conversation.over = True
                raise
            if answer is None:
                answer = yield from conversation.answer(deadline)
        finally:
            conversation.abandon()
            if conversation.over:
                self.drop()
        give_back(inbox)
        return answer

    def drop(self) -> None:
        """Closes the channel: no call uses it again."""
        self.usable = False
        _let_go(self.near, self._closing)


def with_table(payload: Payload, entries: Entries, numbers: Sequence[int]) -> tuple[bytes, int, list[int] | CData]:
    """What C sends a call with, beside the key: body, size of that, and what is attached.

    Of what is too long for any record the body is not looked at.
    """
    count, size = len(numbers), len(payload)
    if not isinstance(payload, bytes):
        return b"", size, NULL
    if entries is None:
        attached = [_CM_MAKE_TABLE, count, *numbers]
        return payload, size, attached if count < MANY or count > DESCRIPTORS_MAX else array_of(attached)
    if not count:
        return payload, size, NULL
    table, lines = pack_table(entries)
    return table + payload, len(table) + size, [lines, count, *numbers]


def _let_go(near: Private, closing: Sender) -> None:
    """Closes the client's end of a channel, unless a fork or a drop did."""
    if near.number >= 0:
        # Its queue may hold what takes long to close.
        reaper.close_socket(near, closing)


def _at_once(inbox: Inbox, result: int) -> Answer | None:
    """The answer that C has found in the inbox; None where there is none, or one to be looked at closer."""
    if TOLD_IN_ORDER <= result < TOLD_WHOLE:
        return inbox.bytes[HEAD_SIZE + _CM_LINE * inbox.count[0] : result - TOLD_IN_ORDER], inbox
    answer: Answer | None = None
    if result >= TOLD_WHOLE:
        answer = _whole_at_once(inbox)
    elif result >= TOLD_DATA:
        answer = inbox.bytes[HEAD_SIZE:result]
    if answer is not None:
        give_back(inbox)
    return answer


def _whole_at_once(inbox: Inbox) -> Whole | None:
    """The REPLY in the inbox, which came with all that it announces; None if it is one to be looked at closer."""
    try:
        record = unpack(inbox.data())
    except Malformed:
        return None
    return (record, inbox.steal()) if isinstance(record, Reply) else None
