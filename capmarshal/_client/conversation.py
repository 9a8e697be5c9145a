"""What a client hears on its channel, and what the end of the channel means.

A channel has one call outstanding, and its client sends nothing but calls, and a GO where the server has sent part of
an answer and waits.  That gives the end of the channel a meaning.  When the server closes its end, or dies,

- the kernel reports ECONNRESET, once, if the server left a record of ours unread: a call, since nobody reads an answer
  before the call.  It reports that *before* the records that are still queued here (unix_release_sock(),
  net/unix/af_unix.c);
- then what is queued, among it perhaps the answer, and then the end of file.  A send gets EPIPE, or takes the
  ECONNRESET in place of the next receive.

So whoever sees ECONNRESET or EPIPE goes on receiving until the end of file, and then decides:

==========================  ============================================================
the answer has come         it is used
ECONNRESET, and no answer   UNREAD: the call was never read, and it is safe to repeat it
the end of file alone       ENDED: the call may have been run
==========================  ============================================================

An answer of which a part has come is the answer to a call that was read.  A GONE is the last word of a server that
has read no more of the channel: it gives an idle one up, or keeps its end for a while, where the kernel says nothing of
what is unread: UNREAD.  All this holds for an honest server; a hostile one can say
anything.

Records of earlier calls, which were abandoned at their deadline or by Ctrl-C, are known by their ID, and closed.
"""

from __future__ import annotations

import errno
import select
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeAlias

from capmarshal._client.unanswered import NeverRan, ServerGone, TooLate
from capmarshal._descriptors import reaper
from capmarshal._descriptors.inbox import why_lost
from capmarshal._kernel.errors import DescriptorsLost, KernelError, ProtocolError, TooLarge, error_for
from capmarshal._kernel.native import NOW, TIMED_OUT, lib
from capmarshal._kernel.waiting import LET_OTHERS_RUN, Patience, Wait
from capmarshal._protocol.answer_bound import in_force
from capmarshal._protocol.parts import RESULT_BYTES_MAX, RESULT_DESCRIPTORS_MAX, Assembly
from capmarshal._protocol.wire import Begin, Call, Fail, Go, Gone, Knock, Malformed, Part, Reply, pack_go, unpack

if TYPE_CHECKING:
    from capmarshal._descriptors.closing_jobs import Sender
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.waiting import Steps
    from capmarshal._protocol.wire import Record

PIPE_ENDED: Final = (-errno.EPIPE, -errno.ECONNRESET)
_NO_MEMORY: Final = (-errno.ENOBUFS, -errno.ENOMEM)
_ASKING: Final = "asking for the rest of an answer"
# Records that are taken without a look at the time, where they have few descriptors.
_IN_A_ROW: Final = 16
# Looked up once: an attribute of cffi's is 40 ns.
_CM_PART: Final = lib.CM_PART

# An answer and its descriptors, which are whoever's who receives it.
Whole: TypeAlias = "tuple[Reply | Fail, DescriptorList]"


class Event(Enum):
    """What a client hears of the call that it is making."""

    ANSWERED = auto()
    """All of its answer has come: :attr:`Conversation.whole`."""
    GO = auto()
    """The server has received the last part of it, and waits for the next."""
    NOTHING = auto()
    """Nothing in time."""
    UNREAD = auto()
    """The channel has ended, and the server has not read the call."""
    ENDED = auto()
    """The channel has ended, and the call may have been run."""


class _Came(NamedTuple):
    """A record that came, and its descriptors, which are to be taken."""

    record: Record
    descriptors: DescriptorList
    lost: str


class Conversation:
    """One call, from its being sent on; what may wait is steps, see :mod:`capmarshal._kernel.waiting`.

    Args:
        near: the client's end of the channel, borrowed.
        call_id: of the call.
        inbox: to receive into, borrowed.
        closing: to whose account the closing goes of what the server sends.
        blocks: a wait for the next record may be made in C, with the receiving of it in one crossing.

    Attributes:
        over: no other call can be made on the channel: it has ended, or its server is not to be trusted, or what was
            begun on it will not be finished.
        whole: the answer.
    """

    __slots__ = (
        "_assembly",
        "_blocks",
        "_call_id",
        "_closing",
        "_in_a_row",
        "_inbox",
        "_near",
        "_owes_go",
        "_reset",
        "over",
        "whole",
    )

    def __init__(self, near: Private, call_id: int, inbox: Inbox, closing: Sender, *, blocks: bool = True) -> None:
        self._near = near
        self._call_id = call_id
        self._inbox = inbox
        self._closing = closing
        self._blocks = blocks
        self._reset = self._owes_go = False
        self._in_a_row = 0
        self._assembly: Assembly | None = None
        self.over = False
        self.whole: Whole | None = None

    def receive(self, deadline: int, result: int = -errno.EINTR) -> Steps[Event]:
        """Receives until something is heard of this call.

        Args:
            deadline: until when to wait; all of an answer in parts must have come then.
            result: of a first receive that was made already; its record is in the inbox.

        Raises:
            DescriptorsLost: the answer has come, and the kernel withheld some of its descriptors.
            TooLarge, ProtocolError, Disconnected, KernelError: as they say; the conversation is over.
        """
        while True:
            if result == _CM_PART:
                assert self._assembly is not None  # noqa: S101 - for the type checker: it is what the part belongs to
                self._in_a_row += 1
                if self._assembly.complete:
                    return self._assembled(self._assembly)
            elif result > 0:
                came = self._take()
                self._in_a_row += 1 + len(came.descriptors) // _IN_A_ROW
                event = self._heard(came)
                if event is not None:
                    return event
            elif result == 0:
                self.over = True
                return Event.UNREAD if self._reset and self._assembly is None else Event.ENDED
            elif result in PIPE_ENDED:
                self.note_reset()
            elif result in TIMED_OUT:
                self._in_a_row = 0
                may_wait = deadline != NOW and not self._blocks
                if not may_wait or not (yield Wait(self._near.number, select.POLLIN, deadline)):
                    return Event.NOTHING
            elif result != -errno.EINTR:
                self._give_up(-result)
            if self._owes_go:
                yield from self._say_go(deadline)
            if self._in_a_row >= _IN_A_ROW and not (yield from self._others_run(deadline)):
                return Event.NOTHING
            result = self._next(deadline)

    def _others_run(self, deadline: int) -> Steps[bool]:
        """After many records in a row: a server that says ever more has neither a loop to itself, nor more time.

        Returns:
            Whether there is time left.
        """
        self._in_a_row = 0
        yield LET_OTHERS_RUN
        return time.monotonic_ns() < deadline

    def _next(self, deadline: int) -> int:
        """Receives one record into the inbox, or where it belongs in an answer that comes in parts."""
        until = deadline if self._blocks else NOW
        if self._assembly is None:
            return lib.cm_receive(self._near.number, self._inbox.struct, until)
        return lib.cm_receive_part(self._near.number, self._assembly.struct, self._inbox.struct, until)

    def note_reset(self) -> None:
        """The kernel has said that the channel ended: the rest of it is to be received, up to the end of file."""
        self._reset = self.over = True

    def answer(self, deadline: int, result: int = -errno.EINTR) -> Steps[Whole]:
        """Waits for the answer to the call, which was sent whole.

        Args:
            deadline: until when.
            result: as :meth:`receive` takes it.

        Raises:
            NeverRan: the channel has ended, and the call was not read.
            Disconnected: the channel has ended, and the call may have been run.
            TooLate: no answer came in time.
            DescriptorsLost, TooLarge, ProtocolError, KernelError: as :meth:`receive`.
        """
        try:
            while True:
                event = yield from self.receive(deadline, result)
                result = -errno.EINTR
                if event is Event.ANSWERED:
                    assert self.whole is not None  # noqa: S101 - for the type checker: that is what it means
                    return self.whole
                if event is Event.NOTHING:
                    raise TooLate("no answer", ran="maybe")
                if event is Event.UNREAD:
                    raise NeverRan
                if event is Event.ENDED:
                    raise ServerGone(
                        "the server closed its entrypoint, or ended, during the call, which may have run", ran="maybe"
                    )
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes what has come of an answer, of which the rest is on its way."""
        if self._assembly is not None:
            reaper.close([self._assembly.steal()], self._closing)
            self._assembly = None
            self.over = True

    def _give_up(self, number: int) -> NoReturn:
        self.over = True
        if number == errno.EBADF:
            raise ServerGone(
                "this process was forked during the call, which may have run; the channel is its parent's", ran="maybe"
            )
        raise error_for(number, "waiting for an answer", "recvmsg(2), or ppoll(2)")

    def _take(self) -> _Came:
        """The record in the inbox.

        Raises:
            ProtocolError: it is none that a server may send.
        """
        inbox = self._inbox
        data, lost = inbox.data(), inbox.struct.lost
        why = why_lost() if lost & lib.CM_LOST_DESCRIPTORS else ""
        descriptors = inbox.steal()
        try:
            record = unpack(data)
            if isinstance(record, (Call, Knock)) or lost & lib.CM_LOST_BYTES:
                raise Malformed("no answer to a call of ours", None)
            if not isinstance(record, Gone) and not 0 < record.id <= self._call_id:
                raise Malformed("an answer to a call that was not made", None)
            announced = record.descriptors if isinstance(record, (Reply, Part)) else 0
            if not lost and len(descriptors) != announced:
                raise Malformed(f"{len(descriptors)} descriptors instead of {announced}", None)
        except Malformed as malformed:
            self._refuse(_Came(Gone(), descriptors, why), str(malformed))
        return _Came(record, descriptors, why)

    def _close(self, came: _Came) -> None:
        # Elsewhere, where closing can outlast the call's deadline.
        if len(came.descriptors):
            reaper.close([came.descriptors], self._closing)

    def _refuse(self, came: _Came, reason: str) -> NoReturn:
        self._close(came)
        self.over = True
        raise ProtocolError(f"the server sent what is no answer, whether or not it has run the call: {reason}")

    def _heard(self, came: _Came) -> Event | None:
        """What a record means for the call; None if nothing yet."""
        record = came.record
        if isinstance(record, Gone):
            self._close(came)
            self.over = True
            return Event.UNREAD if self._assembly is None else Event.ENDED
        if isinstance(record, (Call, Knock)) or record.id != self._call_id:
            # Of an earlier call, that was abandoned.
            self._close(came)
            return None
        if isinstance(record, Go):
            self._close(came)
            return Event.GO
        if isinstance(record, Begin):
            self._begin(came, record)
            return None
        if isinstance(record, Part):
            return self._part(came, record)
        self.whole = self._whole(came)
        return Event.ANSWERED

    def _begin(self, came: _Came, begin: Begin) -> None:
        if self._assembly is not None:
            self._refuse(came, "one answer within another")
        self._close(came)
        if refusal := _too_large(begin):
            self.over = True
            raise TooLarge(refusal)
        try:
            self._assembly = Assembly(begin)
        except KernelError:
            self.over = True
            raise

    def _part(self, came: _Came, part: Part) -> Event | None:
        """Adds a part to the answer; None if it was not the last."""
        assembly = self._assembly
        if assembly is None:
            self._refuse(came, "a part of nothing")
        try:
            self._owes_go = assembly.add(part, came.descriptors, came.lost)
        except Malformed as malformed:
            self._assembly = None
            reaper.close([assembly.steal()], self._closing)
            self._refuse(came, str(malformed))
        return self._assembled(assembly) if assembly.complete else None

    def _assembled(self, assembly: Assembly) -> Event:
        """The answer of which the last part has come."""
        self._assembly = None
        descriptors = assembly.steal()
        try:
            record = unpack(assembly.data)
        except Malformed as malformed:
            self._refuse(_Came(Gone(), descriptors, ""), str(malformed))
        self.whole = self._whole(_Came(record, descriptors, assembly.lost))
        return Event.ANSWERED

    def _whole(self, came: _Came) -> Whole:
        """The answer, which this record is, with all that belongs to it."""
        record = came.record
        if not isinstance(record, (Reply, Fail)) or record.id != self._call_id:
            self._refuse(came, "an answer in parts that is none")
        announced = record.descriptors if isinstance(record, Reply) else 0
        if came.lost:
            count = len(came.descriptors)
            self._close(came)
            lost = f"{announced - count} of {announced} descriptors of the result were lost: {came.lost}"
            raise DescriptorsLost(errno.EMFILE, lost)
        if len(came.descriptors) != announced:
            self._refuse(came, f"{len(came.descriptors)} descriptors instead of {announced}")
        return record, came.descriptors

    def _say_go(self, deadline: int) -> Steps[None]:
        """Asks for the next part of the answer.

        A GO that was lost would leave both sides waiting, so it is sent, or the call ends; :data:`NOW` leaves that to
        whoever waits.

        Raises:
            TooLate: it could not be sent in time.
            KernelError: it cannot be sent.
        """
        record = pack_go(self._call_id)
        patience: Patience | None = None
        while True:
            result = lib.cm_send_record(self._near.number, record, len(record), (), 0)
            if result == 0 or result in PIPE_ENDED:
                # If the server is gone, the next receive says what that means.
                self._owes_go = False
                return
            if result == -errno.EAGAIN:
                if deadline == NOW:
                    return
                if not (yield Wait(self._near.number, select.POLLOUT, deadline)):
                    raise TooLate("no more of the answer: the server did not read", ran="maybe")
            elif result in _NO_MEMORY:
                patience = patience or Patience(deadline)
                if not (yield from patience.wait(self._near.number, 0)):
                    raise error_for(-result, _ASKING)
            elif result != -errno.EINTR:
                self._give_up(-result)


def _too_large(begin: Begin) -> str:
    """Why an answer is more than is taken; empty if it is not."""
    size, descriptors = begin.size, begin.descriptors
    if size > RESULT_BYTES_MAX or descriptors > RESULT_DESCRIPTORS_MAX:
        return (
            f"a result of {size} bytes and {descriptors} descriptors; "
            f"{RESULT_BYTES_MAX} and {RESULT_DESCRIPTORS_MAX} are the most that is taken"
        )
    bound = in_force.get()
    return "" if bound is None else bound.too_large(size, descriptors)
