"""A channel, as its client uses it: one call outstanding, its answer, and what the end of the channel means.

The client sends nothing but calls, and says GO only to an answer that has begun.  That gives the end a meaning: the
kernel reports ECONNRESET if the server left a record of ours unread, so the call never ran; an end of file alone says
that it may have.
"""

from __future__ import annotations

import errno
import select
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import reaper as _reaper
from capmarshal._kernel.errors import CallTimeout, DescriptorsLost, Disconnected, ProtocolError, TooLarge, error_for
from capmarshal._kernel.native import DESCRIPTORS_MAX, FOREVER, NOW, NULL, ffi, lib
from capmarshal._kernel.polling import poll_nanoseconds
from capmarshal._kernel.waiting import Patience
from capmarshal._protocol import parts as _parts
from capmarshal._protocol import wire as _wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._descriptors.descriptor import Descriptor
    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._descriptors.private import Private
    from capmarshal._protocol.wire import Entry, Fail, Record, Reply

PIPE_ENDED: Final = (-errno.EPIPE, -errno.ECONNRESET)
_TIMED_OUT: Final = (-errno.ETIMEDOUT, -errno.EAGAIN)

# Looked up once: an attribute of cffi's is 40 ns, and these are wanted in each call.
_cm_call, _CM_WHOLE, _CM_DATA, _HEAD_SIZE = lib.cm_call, lib.CM_WHOLE, lib.CM_DATA, _wire.HEAD_SIZE
_borrow, _give_back = _inbox.borrow, _inbox.give_back

# An answer with its descriptors; and one that may also be nothing but a result's payload.
Whole: TypeAlias = "tuple[Reply | Fail, list[Descriptor]]"
Answer: TypeAlias = "bytes | Whole"


class NeverRan(Exception):  # never leaves the package: the call is repeated, or becomes Disconnected
    """The channel ended, and the server certainly never had the whole call."""


class _Came(NamedTuple):
    """A record that came; its descriptors are to be taken."""

    record: Record
    descriptors: list[Descriptor]
    lost: str

    def close(self) -> None:
        for descriptor in self.descriptors:
            # Elsewhere, where closing can outlast the call's deadline.
            _reaper.close_descriptor(descriptor.detach())


class Channel:
    """A private socket to one entrypoint; lent to one call at a time.

    Args:
        near: the client's end, taken.

    Attributes:
        usable: another call may be made on it.
    """

    __slots__ = ("_body_room", "_caller", "_near", "_room", "usable")

    def __init__(self, near: Private) -> None:
        self._near = near
        self._caller = ffi.new("struct cm_caller *")
        self._caller.poll = poll_nanoseconds
        self._room = _inbox.record_room(near.number)
        self._body_room = self._room - _wire.CALL_SIZE
        self.usable = True

    @property
    def _last_id(self) -> int:
        """Of the call that is being made, or was made last."""
        return int(self._caller.id)

    def call(
        self,
        badge: bytes,
        method: bytes,
        payload: bytes,
        entries: Sequence[Entry],
        numbers: Sequence[int],
        deadline: int,
    ) -> Answer:
        """One call: its answer, whose descriptors the caller owns; borrows ``numbers``.

        Raises:
            NeverRan: the channel has ended, and the call was not read.
            Disconnected: the channel has ended, and the call may have been run.
            CallTimeout, DescriptorsLost, TooLarge, ProtocolError, KernelError: as they say.
        """
        body = _wire.pack_table(entries) + payload if entries else payload
        inbox = _borrow()
        patience: Patience | None = None
        if len(method) + len(body) <= self._body_room and len(numbers) <= DESCRIPTORS_MAX:
            struct = inbox.struct
            while True:
                result = _cm_call(
                    self._near.number, self._caller, badge, method, len(method), body, len(body),
                    len(entries), numbers or NULL, len(numbers), struct, deadline,
                )  # fmt: skip
                if result == _CM_DATA:
                    data: bytes = inbox.bytes[_HEAD_SIZE : struct.size]
                    _give_back(inbox)
                    return data
                if result == _CM_WHOLE:
                    whole = self._whole_at_once(inbox)
                    if whole is not None:
                        _give_back(inbox)
                        return whole
                if struct.sent:
                    break
                patience = self._unsent(inbox, result, patience or Patience(deadline))
            answer = self._answer(inbox, deadline, result)
        else:
            self._caller.id += 1
            now = time.monotonic_ns()
            left = _wire.NO_LIMIT if deadline == FOREVER else max(deadline - now, 0)
            record = _wire.pack_call(self._last_id, badge, left, now, method, entries, len(numbers), payload)
            try:
                early = self._send_parts(record, numbers, inbox, deadline)
            except BaseException:
                # Half a call is on its way.
                self.drop()
                raise
            answer = early or self._answer(inbox, deadline, -errno.EINTR)
        _inbox.give_back(inbox)
        return answer

    def _whole_at_once(self, inbox: Inbox) -> Whole | None:
        """The REPLY in the inbox, which came with all that it announces; None if it is one to be looked at closer."""
        try:
            record = _wire.unpack(inbox.data())
        except _wire.Malformed:
            return None
        return (record, inbox.steal()) if isinstance(record, _wire.Reply) else None

    def _unsent(self, inbox: Inbox, result: int, patience: Patience) -> Patience:
        """Deals with a CALL that was not sent: returns when it is to be sent again.

        Raises:
            NeverRan, CallTimeout, KernelError: as :meth:`call`.
        """
        if result in PIPE_ENDED:
            self.drop()
            raise NeverRan
        if result == -errno.ETOOMANYREFS and patience.wait(self._near.number, select.POLLIN):
            # A late answer in our own queue counts too, and nobody else receives that.
            self._early(inbox, NOW, go=False)
            if not self.usable:
                raise NeverRan
            return patience
        if result in _TIMED_OUT:
            raise CallTimeout("the server did not read in time, so the call was not sent", ran="no")
        if result != -errno.EINTR:
            raise error_for(-result, "sending a call")
        return patience

    def _send_parts(self, record: bytes, numbers: Sequence[int], inbox: Inbox, deadline: int) -> Whole | None:
        """Sends a CALL in parts; its answer, if the server gives one before it has all of it."""
        memory = ffi.from_buffer(record)
        patience: Patience | None = None
        part_bytes = min(self._room - _wire.HEAD_SIZE, _parts.PART_BYTES)
        for piece in _parts.cut(self._last_id, len(record), numbers, part_bytes):
            # Not even looked at by a server that has refused the call.
            early = self._early(inbox, NOW, go=False)
            while early is None:
                result = _parts.send_piece(self._near.number, piece, memory)
                if result == 0:
                    break
                if result in PIPE_ENDED:
                    return self._last_word(inbox)
                if result == -errno.ETOOMANYREFS:
                    patience = patience or Patience(deadline)
                    if patience.wait(self._near.number, select.POLLIN):
                        # What others are to receive may be waiting for us to receive.
                        early = self._early(inbox, NOW, go=False)
                        continue
                if result != -errno.EAGAIN:
                    raise error_for(-result, "sending a call in parts")
                ready = lib.cm_wait(self._near.number, select.POLLIN | select.POLLOUT, deadline)
                if ready in _TIMED_OUT:
                    raise CallTimeout("the server did not read in time; the call was not sent whole", ran="no")
                if ready > 0 and ready & select.POLLIN:
                    # An answer that nobody waits for any more may be what keeps the server from reading.
                    early = self._early(inbox, NOW, go=False)
            patience = None
            if early is None and piece.waits:
                early = self._early(inbox, deadline, go=True)
            if early is not None:
                return early
        return None

    def _early(self, inbox: Inbox, deadline: int, *, go: bool) -> Whole | None:
        """Receives while a call is still being sent: the refusal of it; or None, after the GO if one is due.

        Raises:
            NeverRan: the channel ended.
        """
        while True:
            result = lib.cm_receive(self._near.number, inbox.struct, deadline)
            if result == -errno.EINTR:
                continue
            if result in _TIMED_OUT:
                if not go:
                    return None
                raise CallTimeout("the server did not take all of the call in time", ran="no")
            if result == 0 or result in PIPE_ENDED:
                return self._last_word(inbox)
            if result < 0:
                self._raise_receive(-result)
            came = self._take(inbox)
            if isinstance(came.record, _wire.Fail) and came.record.id == self._last_id:
                came.close()
                return came.record, []
            if isinstance(came.record, _wire.Gone):
                self.drop()
                raise NeverRan
            came.close()
            if go and isinstance(came.record, _wire.Go) and came.record.id == self._last_id:
                return None

    def _last_word(self, inbox: Inbox) -> Whole:
        """The channel has ended before all of the call was sent: the server's refusal, if that is why.

        Raises:
            NeverRan: it was not.
        """
        result = -errno.ECONNRESET
        while result != 0:
            result = lib.cm_receive(self._near.number, inbox.struct, NOW)
            if result > 0:
                came = self._take(inbox)
                came.close()
                if isinstance(came.record, _wire.Fail) and came.record.id == self._last_id:
                    self.drop()
                    return came.record, []
            elif result not in (*PIPE_ENDED, -errno.EINTR):
                break
        self.drop()
        raise NeverRan

    def _answer(self, inbox: Inbox, deadline: int, result: int) -> Whole:
        """Waits for the answer; ``result`` is that of a first receive."""
        reset = False
        assembly: _parts.Assembly | None = None
        try:
            while True:
                if result > 0:
                    came = self._take(inbox)
                    if isinstance(came.record, _wire.Gone):
                        self.drop()
                        raise NeverRan
                    if isinstance(came.record, _wire.Begin) and came.record.id == self._last_id and assembly is None:
                        assembly = self._begin(came.record)
                    elif isinstance(came.record, _wire.Part) and came.record.id == self._last_id:
                        came = self._part(came, assembly)
                    answer = self._whole(came)
                    if answer is not None:
                        return answer
                elif result == 0:
                    self.drop()
                    # An answer that has begun is the answer to a call that was read.
                    if reset and assembly is None:
                        raise NeverRan
                    raise Disconnected("the server ended the channel during the call", ran="maybe")
                elif result in PIPE_ENDED:
                    # The kernel reports this before the records that are still queued: a reply may be among them.
                    reset = True
                elif result != -errno.EINTR:
                    self._raise_receive(-result)
                result = lib.cm_receive(self._near.number, inbox.struct, deadline)
        except BaseException:
            if assembly is not None:
                # The rest of an answer is on its way.
                assembly.close()
                self.drop()
            raise

    def _raise_receive(self, number: int) -> None:
        if -number in _TIMED_OUT:
            raise CallTimeout("no answer came in time", ran="maybe")
        self.drop()
        if number == errno.EBADF:
            raise Disconnected("this process was forked during the call; the channel is its parent's", ran="maybe")
        raise error_for(number, "waiting for an answer")

    def _take(self, inbox: Inbox) -> _Came:
        """The record in the inbox.

        Raises:
            ProtocolError: it is none that a server may send.
        """
        data, lost = inbox.data(), inbox.struct.lost
        why = _inbox.why_lost(self._near.number) if lost & lib.CM_LOST_DESCRIPTORS else ""
        descriptors = inbox.steal()
        try:
            record = _wire.unpack(data)
            if isinstance(record, (_wire.Call, _wire.Knock)) or lost & lib.CM_LOST_BYTES:
                raise _wire.Malformed("no answer to a call of ours", None)
            if not isinstance(record, _wire.Gone) and not 0 < record.id <= self._last_id:
                raise _wire.Malformed("an answer to a call that was not made", None)
            announced = record.descriptors if isinstance(record, (_wire.Reply, _wire.Part)) else 0
            if not lost and len(descriptors) != announced:
                raise _wire.Malformed(f"{len(descriptors)} descriptors instead of {announced}", None)
        except _wire.Malformed as malformed:
            self._refuse(_Came(_wire.Gone(), descriptors, why), str(malformed))
        return _Came(record, descriptors, why)

    def _refuse(self, came: _Came, reason: str) -> None:
        came.close()
        self.drop()
        raise ProtocolError(f"the server sent what is no answer: {reason}")

    def _begin(self, begin: _wire.Begin) -> _parts.Assembly:
        if begin.size > _parts.RESULT_BYTES_MAX or begin.descriptors > _parts.RESULT_DESCRIPTORS_MAX:
            self.drop()
            raise TooLarge(
                f"a result of {begin.size} bytes and {begin.descriptors} descriptors; "
                f"{_parts.RESULT_BYTES_MAX} and {_parts.RESULT_DESCRIPTORS_MAX} are the most that is taken"
            )
        return _parts.Assembly(begin)

    def _part(self, came: _Came, assembly: _parts.Assembly | None) -> _Came:
        """Adds a part to the answer: the whole answer if that was the last, else the part, without descriptors."""
        if assembly is None:
            self._refuse(came, "a part of nothing")
        assert assembly is not None  # noqa: S101 - for the type checker
        assert isinstance(came.record, _wire.Part)  # noqa: S101 - likewise
        try:
            go = assembly.add(came.record, came.descriptors, came.lost)
            if assembly.complete:
                return _Came(_wire.unpack(bytes(assembly.data)), assembly.steal(), assembly.lost)
        except _wire.Malformed as malformed:
            self._refuse(came, str(malformed))
        if go:
            self._say_go()
        return _Came(came.record, [], "")

    def _say_go(self) -> None:
        """There is always room: the server has read all that we sent.  If it is gone, the next receive says so."""
        record = _wire.pack_go(self._last_id)
        lib.cm_send_record(self._near.number, record, len(record), (), 0)

    def _whole(self, came: _Came) -> Whole | None:
        """The answer, if this record is it; None for any other, which is then closed."""
        record = came.record
        if not isinstance(record, (_wire.Reply, _wire.Fail)) or record.id != self._last_id:
            # Of an earlier call, that was abandoned; or not the last of this one.
            came.close()
            return None
        announced = record.descriptors if isinstance(record, _wire.Reply) else 0
        if came.lost:
            count = len(came.descriptors)
            came.close()
            lost = f"{announced - count} of {announced} descriptors of the result were lost: {came.lost}"
            raise DescriptorsLost(errno.EMFILE, lost)
        if len(came.descriptors) != announced:
            self._refuse(came, f"{len(came.descriptors)} descriptors instead of {announced}")
        return record, came.descriptors

    def drop(self) -> None:
        """Closes it: no call uses it again."""
        self.usable = False
        # Its queue may hold what takes long to close.
        _reaper.close(self._near)

    def __del__(self) -> None:
        if self.usable:
            self._near.close()
