"""The client's side of a conversation: knock at a door once, then call on the channel that was handed in.

A channel has one call outstanding, and the client sends nothing but calls on it.  That gives its end a meaning: the
kernel reports ECONNRESET if the server left a record of ours unread, so the call never ran; an end of file alone says
that it may have.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING, Final

from capmarshal import _deadline, _inbox, _private, _reaper, _wire
from capmarshal._errors import (
    CallTimeout,
    DescriptorsLost,
    Disconnected,
    MessageTruncated,
    ProtocolError,
    check,
    error_for,
)
from capmarshal._lx import FOREVER, ffi, lib
from capmarshal._private import Private

if TYPE_CHECKING:
    from capmarshal._capability import Door
    from capmarshal._descriptor import Descriptor
    from capmarshal._inbox import Inbox
    from capmarshal._wire import Entry, Fail, Reply

_MILLISECOND = 1_000_000
_BACKOFF_FIRST = 1 * _MILLISECOND
_BACKOFF_LAST = 64 * _MILLISECOND

# How long a sender waits for others' descriptors in flight to be received when it has no deadline of its own.
IN_FLIGHT_PATIENCE = 10_000 * _MILLISECOND

_PIPE_ENDED: Final = (-errno.EPIPE, -errno.ECONNRESET)


class NeverRan(Exception):  # never leaves this module: the call is repeated, or becomes Disconnected
    """The channel ended, and the server certainly never read the call."""


class Backoff:
    """Waits a little longer each time, until a deadline."""

    __slots__ = ("_deadline", "_next")

    def __init__(self, deadline: int) -> None:
        self._deadline = deadline
        self._next = _BACKOFF_FIRST

    def wait(self, door: Door) -> bool:
        """Waits; False at once if there is no time left.  Ends early when the door hangs up."""
        now = time.monotonic_ns()
        if now >= self._deadline:
            return False
        lib.cm_wait(door.number, 0, min(self._deadline, now + self._next))
        self._next = min(self._next * 2, _BACKOFF_LAST)
        return True


class Channel:
    """A private socket to one entrypoint; lent to one call at a time."""

    __slots__ = ("_last_id", "_near", "usable")

    def __init__(self, near: Private) -> None:
        self._near = near
        self._last_id = 0
        self.usable = True

    def call(
        self,
        badge: bytes,
        method: bytes,
        payload: bytes,
        entries: list[Entry],
        numbers: list[int],
        deadline: int,
    ) -> tuple[Reply | Fail, list[Descriptor]]:
        """One call: its answer, with the descriptors that came, which the caller owns.

        Raises:
            NeverRan: the channel has ended, and the call was not read.
            Disconnected: the channel has ended, and the call may have been run.
            CallTimeout, DescriptorsLost, MessageTruncated, ProtocolError, KernelError: as they say.
        """
        self._last_id += 1
        call_id = self._last_id
        now = time.monotonic_ns()
        left = _wire.NO_LIMIT if deadline == FOREVER else max(deadline - now, 0)
        record = _wire.pack_call(call_id, badge, left, now, method, entries, len(numbers), payload)
        inbox = _inbox.borrow()
        result = self._send(record, numbers, inbox, deadline)
        reset = False
        while True:
            if result > 0:
                answer = self._read(inbox, call_id)
                if answer is not None:
                    _inbox.give_back(inbox)
                    return answer
            elif result == 0:
                self.drop()
                if reset:
                    raise NeverRan
                raise Disconnected("the server ended the channel during the call", ran="maybe")
            elif result in _PIPE_ENDED:
                # The kernel reports this before the records that are still queued, and a reply may be among them.
                reset = True
            elif result != -errno.EINTR:
                self._raise_receive(-result)
            result = lib.cm_receive(self._near.number, inbox.struct, deadline)

    def _send(self, record: bytes, numbers: list[int], inbox: Inbox, deadline: int) -> int:
        """Sends the CALL; the result of the first receive."""
        while True:
            result = lib.cm_call(self._near.number, record, len(record), numbers, len(numbers), inbox.struct, deadline)
            if inbox.struct.sent:
                return result
            if result in _PIPE_ENDED:
                self.drop()
                raise NeverRan
            if result in (-errno.ETIMEDOUT, -errno.EAGAIN):
                raise CallTimeout("the server did not read in time, so the call was not sent", ran="no")
            if result != -errno.EINTR:
                raise error_for(-result, "sending a call")

    def _raise_receive(self, number: int) -> None:
        if number in (errno.ETIMEDOUT, errno.EAGAIN):
            raise CallTimeout("no answer came in time", ran="maybe")
        self.drop()
        if number == errno.EBADF:
            raise Disconnected("this process was forked during the call; the channel is its parent's", ran="maybe")
        raise error_for(number, "waiting for an answer")

    def _read(self, inbox: Inbox, call_id: int) -> tuple[Reply | Fail, list[Descriptor]] | None:
        """The answer in the inbox; None if it is the late one of an earlier, abandoned call."""
        data, lost = inbox.data(), inbox.struct.lost
        why = _inbox.why_lost(self._near.number) if lost else ""
        descriptors = inbox.steal()
        try:
            record = _wire.unpack(data)
            if not isinstance(record, (_wire.Reply, _wire.Fail)) or not 0 < record.id <= call_id:
                raise _wire.Malformed("no answer to a call of ours", None)
            declared = record.descriptors if isinstance(record, _wire.Reply) else 0
            if not lost and len(descriptors) != declared:
                raise _wire.Malformed(f"{len(descriptors)} descriptors instead of {declared}", None)
        except _wire.Malformed as malformed:
            close_all(descriptors)
            self.drop()
            raise ProtocolError(f"the server sent what is no answer: {malformed}") from None
        if record.id < call_id:
            close_all(descriptors)
            return None
        if lost & lib.CM_LOST_BYTES:
            close_all(descriptors)
            raise MessageTruncated(errno.EMSGSIZE, f"the result is larger than {_inbox.RECORD_MAX} bytes")
        if lost:
            close_all(descriptors)
            raise DescriptorsLost(
                errno.EMFILE,
                f"{declared - len(descriptors)} of {declared} descriptors of the result were lost: {why}",
            )
        return record, descriptors

    def drop(self) -> None:
        """Closes it: no call uses it again."""
        self.usable = False
        # Its queue may hold what takes long to close.
        _reaper.close(self._near)

    def __del__(self) -> None:
        if self.usable:
            self._near.close()


def close_all(descriptors: list[Descriptor]) -> None:
    """Closes what a client received and cannot use: elsewhere, where closing can outlast the call's deadline."""
    for descriptor in descriptors:
        _reaper.close_descriptor(descriptor.detach())


def _knock(door: Door, deadline: int) -> Channel:
    """A new channel: one end kept, the other handed in at the door.

    Raises:
        Disconnected: the server is gone.
        CallTimeout, TableFull, TooManyInFlight, KernelError: as they say; nothing is left behind.
    """
    pair = ffi.new("int[2]")
    with _private.lock:
        check(
            lib.lx_socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC, 0, pair),
            "making a channel",
        )
        near, far = Private(pair[0]), Private(pair[1])
    try:
        part = ffi.new("struct iovec *")
        memory = ffi.from_buffer(_wire.KNOCK_RECORD)
        part.iov_base, part.iov_len = memory, len(_wire.KNOCK_RECORD)
        patience = Patience(deadline)
        while True:
            result = lib.cm_send(door.number, part, 1, [far.number], 1, deadline)
            if result == 0:
                return Channel(near)
            if result in _PIPE_ENDED:
                raise Disconnected("the server is gone: its door is shut", ran="no")
            if result in (-errno.ETIMEDOUT, -errno.EAGAIN):
                raise CallTimeout("the server did not open its door in time", ran="no")
            if result == -errno.ETOOMANYREFS and patience.wait(door):
                continue
            if result != -errno.EINTR:
                raise error_for(-result, "knocking at a door")
    except BaseException:
        near.close()
        raise
    finally:
        # At once: as long as we hold a copy, nothing wakes us when the server dies.
        far.close()


class Patience(Backoff):
    """For ETOOMANYREFS: waits for the queues to drain until the deadline, or a while where there is none."""

    __slots__ = ()

    def __init__(self, deadline: int) -> None:
        super().__init__(time.monotonic_ns() + IN_FLIGHT_PATIENCE if deadline == FOREVER else deadline)


def exchange(
    door: Door, badge: bytes, method: bytes, payload: bytes, entries: list[Entry], numbers: list[int]
) -> tuple[Reply | Fail, list[Descriptor]]:
    """Calls through ``door``: the answer, with its descriptors, which the caller owns; borrows ``numbers``.

    A call that was certainly not read is repeated on a new channel as long as the door has not hung up: the server's
    table was full, or it gave up an idle channel.

    Raises:
        Disconnected, CallTimeout, TooManyInFlight, DescriptorsLost, RecordTooBig, ProtocolError, KernelError
    """
    deadline = _deadline.current.get()
    if deadline != FOREVER and time.monotonic_ns() >= deadline:
        raise CallTimeout("the deadline had passed before the call was made", ran="no")
    backoff, patience = Backoff(deadline), Patience(deadline)
    while True:
        channel: Channel
        try:
            channel, kept = door.idle.pop(), True
        except IndexError:
            channel, kept = _knock(door, deadline), False
        try:
            return channel.call(badge, method, payload, entries, numbers, deadline)
        except NeverRan:
            if door.hung_up:
                raise Disconnected("the server is gone; the call was not begun", ran="no") from None
            # A kept channel may just have grown old; only a new one that ended is a refusal.
            if not kept and not backoff.wait(door):
                raise CallTimeout("the server took no new channel in time", ran="no") from None
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS or not patience.wait(door):
                raise
        finally:
            if channel.usable:
                door.idle.append(channel)
