"""Handing a capability over by a socket in which it waits: one record, with the badge and the door's client end.

Whoever takes it need not be there when it is sent, and the socket may carry anything else before and after.  What
waits there is looked at without room for descriptors before it is taken, which makes none and removes nothing.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

from capmarshal._capabilities.capability import Capability, Delegable, badge_of, open_door_of
from capmarshal._capabilities.space import capability_of, space
from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor import Descriptor, number_of
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.moving import made
from capmarshal._kernel.deadline import after, seconds_until, words_for
from capmarshal._kernel.errors import (
    DENIED,
    ArgumentError,
    CallTimeout,
    DescriptorsLost,
    Disconnected,
    Error,
    KernelError,
    ProtocolError,
    Refused,
    TooManyInFlight,
    error_for,
    printable,
    shortened,
)
from capmarshal._kernel.native import NOW, TIMED_OUT, ffi, lib
from capmarshal._kernel.waiting import Backoff, Patience, Wait, drive
from capmarshal._protocol import handover_record
from capmarshal._protocol.handover_record import Because

if TYPE_CHECKING:
    from capmarshal._capabilities.gone import What
    from capmarshal._descriptors.descriptor import HasFileno
    from capmarshal._kernel.waiting import Steps

# Seconds that closing what a stranger sent is waited for.
_CLOSING = 1.0

# What is told where a server has said why.
NOTHING = "nothing was handed over"

_DOING = "receiving a capability"
_ENDED = "the other end of the socket was closed"


def _option(number: int, option: int) -> int | None:
    """What kind of socket it is; None where a filter does not let that be asked.

    Raises:
        KernelError: it is no socket.
    """
    value = lib.cm_socket_option(number, option)
    if value >= 0:
        return value
    if -value in DENIED:
        return None
    raise error_for(-value, "asking what kind of socket this is")


def _usable(sock: HasFileno | int) -> tuple[int, bool]:
    """(number, keeps records) of a socket that a capability can be handed over by.

    One that can't be asked is taken for a STREAM: of that, a record is what it says it is.

    Raises:
        TypeError: another kind of socket.
        KernelError: no socket.
    """
    number = number_of(sock)
    family, kind = _option(number, socket.SO_DOMAIN), _option(number, socket.SO_TYPE)
    usable = "a capability is handed over by a connected AF_UNIX socket, SEQPACKET or STREAM"
    if family not in (socket.AF_UNIX, None):
        raise TypeError(f"{usable}; this one's family is {family}")
    if kind == socket.SOCK_DGRAM:
        raise TypeError(f"{usable}; this one is DGRAM, of which whoever holds it may connect the others' elsewhere")
    return number, kind == socket.SOCK_SEQPACKET


def send_capability(sock: HasFileno | int, cap: What, timeout: float | None = None) -> None:
    """Hands a capability over: who has the other end of a socket gets it by :func:`receive_capability`.

    It waits in the socket until then, and keeps what it stands for reachable; it is gone when the other end is closed.
    Trusts no flag of ``sock``: it waits also where O_NONBLOCK is set, and never raises SIGPIPE.

    Args:
        sock: a connected AF_UNIX socket, SEQPACKET or STREAM, or its number; borrowed.
        cap: a capability, a proxy, or a managed object of this process; borrowed.
        timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.

    Raises:
        CallTimeout: the other end's queue stayed full; nothing was sent.
        Disconnected: the other end is closed; nothing was sent.
        TooManyInFlight: see :class:`TooManyInFlight`; nothing was sent.
        KernelError: it is no socket, its receiver takes no descriptors, or anything else that sendmsg(2) says.
        Closed: the capability or the socket is closed.
        TypeError: ``cap`` is none of these, or ``sock`` another kind of socket.
        ValueError: no time to wait.
    """
    number, _ = _usable(sock)
    capability = cap if isinstance(cap, Capability) else _capability_of(cap)
    send(number, capability, timeout)


def _capability_of(thing: object) -> Capability:
    if not isinstance(thing, Delegable):
        raise TypeError(f"a capability, a proxy or a managed object can be handed over, not {thing!r}")
    return capability_of(thing)


def send(number: int, capability: Capability, timeout: float | None) -> None:
    """As :func:`send_capability`, on a socket of the right kind."""
    # Held as long as it is sent.
    door = open_door_of(capability)
    deadline = after(timeout)
    memory = ffi.from_buffer(record := handover_record.pack(badge_of(capability)))
    # One record is never sent in part, by a STREAM socket either: what fits half the smallest send buffer that there is
    # goes as one buffer of the kernel's (unix_stream_sendmsg() in net/unix/af_unix.c).
    part = ffi.new("struct iovec *", (memory, len(record)))
    patience = Patience(deadline)
    while (result := lib.cm_send(number, part, 1, [door.number], 1, deadline)) != 0:
        if result in TIMED_OUT:
            full = f"the receiver's queue stayed full, and no capability was sent {words_for(timeout, deadline)}"
            raise CallTimeout(full, ran="no")
        if result == -errno.EPERM:
            refused = "the receiver takes no descriptors (SO_PASSRIGHTS), or a filter or security module refuses them"
            raise KernelError(errno.EPERM, f"handing a capability over: {refused}")
        if result == -errno.ETOOMANYREFS and drive(patience.wait(number, 0)):
            continue
        if result != -errno.EINTR:
            raise error_for(-result, "handing a capability over")


def receive_capability(sock: HasFileno | int, timeout: float | None = None) -> Capability:
    """Takes a capability that :func:`send_capability` has handed over, and nothing else, from a socket.

    What is no handover is left there; on a STREAM socket, so is what follows one.  One receiver at a time: between two,
    it is not told who gets what.  What waits in standard input when capmarshal is imported, :func:`parent` gives.

    Args:
        sock: a connected AF_UNIX socket, SEQPACKET or STREAM, or its number; borrowed.
        timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.

    Returns:
        The capability; the same object as whatever else this process has of it.

    Raises:
        CallTimeout: nothing came.
        Disconnected: the other end was closed, and what it sent has been received.
        ProtocolError: what waits there is no handover, and was left there; or it was one that is of no use, as one of
            another version of capmarshal's, and was taken.
        TableFull: there is no room for the door in the descriptor table; what waits there still does.
        DescriptorsLost: the kernel withheld the door all the same; the capability is lost.
        Refused: a listening server hands nothing over to this process, and says why.
        TooManyInFlight: likewise, for now: too much that it has handed over waits to be taken.
        StaleCapability: it was one of this process's own, for an object that it does not manage any more.
        KernelError: it is no socket, or anything else that recvmsg(2) says.
        Closed: the socket is closed.
        TypeError: another kind of socket.
        ValueError: no time to wait.
    """
    return drive(receiving(sock, timeout))


def receiving(sock: HasFileno | int, timeout: float | None) -> Steps[Capability]:
    """As :func:`receive_capability`, in steps."""
    number, keeps_records = _usable(sock)
    deadline = after(timeout)
    size = yield from _await(number, keeps_records, deadline)
    if not size:
        raise CallTimeout(f"no capability came {words_for(timeout, deadline)}", ran="no")
    with made(lib.cm_make_event, "taking a capability", Descriptor):
        # There is room for its door.
        pass
    record, descriptors = yield from _take(number, size, keeps_records, deadline)
    return _unpacked(record, descriptors, deadline)


def waits_in(number: int) -> bool:
    """Whether a handover waits in a socket with records, at the moment."""
    seen = _peek(number, handover_record.HEAD_SIZE)
    if not isinstance(seen, tuple):
        return False
    head, _ = seen
    return len(head) == handover_record.HEAD_SIZE and handover_record.may_begin(head)


def _peek(number: int, size: int) -> tuple[bytes, bool] | int:
    """(bytes, whether anything is attached to them) of what waits in a socket; or -errno.  Nothing is taken."""
    room = ffi.new("char[]", size)
    part = ffi.new("struct iovec *", (room, size))
    message = ffi.new("struct msghdr *", {"msg_iov": part, "msg_iovlen": 1})
    result = lib.lx_recvmsg(number, message, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if result < 0:
        return result
    return ffi.buffer(room, result)[:], bool(message.msg_flags & socket.MSG_CTRUNC)


def _await(number: int, keeps_records: bool, deadline: int) -> Steps[int]:
    """Waits until a handover begins in a socket, and looks at it.

    Returns:
        Bytes to be taken of it at first; 0 if none came in time.

    Raises:
        Disconnected, ProtocolError, KernelError: as :func:`receive_capability`.
    """
    backoff = None
    while True:
        seen = _peek(number, handover_record.HEAD_SIZE)
        if isinstance(seen, tuple):
            return _judge(number, *seen, keeps_records)
        # The kernel reports ECONNRESET once, and before the records that are still queued.
        if seen in (-errno.EINTR, -errno.ECONNRESET):
            continue
        if seen != -errno.EAGAIN:
            # What a STREAM socket says that is not connected (unix_stream_read_generic() in net/unix/af_unix.c).
            raise error_for(errno.ENOTCONN if seen == -errno.EINVAL else -seen, _DOING, "recvmsg(2)")
        if backoff is not None and not (yield from backoff.wait(number, 0)):
            return 0
        if not (yield Wait(number, select.POLLIN | select.POLLRDHUP, deadline)):
            return 0
        # Readable, and yet nothing to be seen, if whoever holds a copy of the socket has set SO_PEEK_OFF.
        backoff = backoff or Backoff(deadline)


def _judge(number: int, seen: bytes, attached: bool, keeps_records: bool) -> int:
    """Bytes to be taken of what was seen in a socket."""
    if not seen and lib.cm_wait(number, select.POLLRDHUP, NOW) > 0:
        raise Disconnected(f"{_DOING}: {_ENDED}", ran="no")
    whole = len(seen) == handover_record.HEAD_SIZE
    if handover_record.may_begin(seen):
        if whole:
            return handover_record.size_of(seen)
        # Of a STREAM, the rest may be yet to come.
        if not keeps_records and (attached or handover_record.is_told(seen)):
            return handover_record.HEAD_SIZE
    raise ProtocolError("what waits in the socket is no capability that was handed over, and was left there")


def _take(number: int, size: int, keeps_records: bool, deadline: int) -> Steps[tuple[bytes, DescriptorList]]:
    """Takes a handover out of a socket, and nothing of what follows it.

    Raises:
        CallTimeout: it did not come whole in time, and is lost.
        DescriptorsLost, Disconnected, ProtocolError, KernelError: as :func:`receive_capability`.
    """
    record, descriptors = b"", DescriptorList()
    try:
        while True:
            record += yield from _received(number, size - len(record), descriptors, deadline)
            if keeps_records or not handover_record.may_begin(record):
                return record, descriptors
            if len(record) == handover_record.HEAD_SIZE:
                size = handover_record.size_of(record)
            if len(record) == size:
                return record, descriptors
    except BaseException:
        reaper.close_within(_CLOSING, [descriptors])
        raise


def _received(number: int, size: int, descriptors: DescriptorList, deadline: int) -> Steps[bytes]:
    """The next bytes of a handover; moves what came with them to the end of ``descriptors``."""
    inbox = _inbox.Inbox(size)
    result = -errno.EINTR
    while result in (-errno.EINTR, -errno.ECONNRESET):
        result = lib.cm_receive(number, inbox.struct, NOW)
        if result == -errno.EAGAIN and deadline != NOW:
            happened = yield Wait(number, select.POLLIN | select.POLLRDHUP, deadline)
            result = -errno.EINTR if happened else -errno.ETIMEDOUT
    if result < 0:
        raise error_for(-result, "receiving the rest of a capability" if result in TIMED_OUT else _DOING)
    came = inbox.steal()
    lost = inbox.struct.lost
    # Before anything is closed.
    why = _inbox.why_lost() if lost & lib.CM_LOST_DESCRIPTORS else ""
    descriptors.take(came)
    if why:
        raise DescriptorsLost(errno.EMFILE, f"a capability that was handed over is lost: {why}", inbox.data())
    if lost:
        raise ProtocolError("a capability was handed over in a record that is longer than it says, and was taken")
    if not inbox.struct.size:
        raise Disconnected(f"{_DOING}: {_ENDED} in the middle of one", ran="no")
    return inbox.data()


def send_refusal(number: int, why: str, because: Because) -> int:
    """Says on a socket, without waiting, that nothing is handed over, and why; 0 or -errno."""
    record = handover_record.pack_refusal(why, because)
    return lib.cm_send_record(number, record, len(record), (), 0)


def _refused(refusal: handover_record.Refusal) -> Error:
    why = printable(shortened(refusal.why))
    if refusal.because is Because.BUSY:
        return TooManyInFlight(errno.ETOOMANYREFS, f"{NOTHING} for now: {why}")
    if refusal.because is Because.GONE:
        return Disconnected(f"{NOTHING}: {why}", ran="no")
    return Refused(errno.EACCES, f"{NOTHING}: {why}")


def _unpacked(record: bytes, descriptors: DescriptorList, deadline: int) -> Capability:
    """The capability that a handover brings; takes its descriptors."""
    owners = descriptors.steal_all()
    try:
        badge = handover_record.read(record)
        if isinstance(badge, handover_record.Refusal):
            raise _refused(badge)
        if len(owners) != 1:
            raise ValueError(f"it came with {len(owners)} descriptors, where one is due")
        return space.receive(space.receive_door(owners[0], None), badge)
    except (ValueError, ArgumentError) as error:
        raise ProtocolError(f"a capability was handed over that is of no use: {error}") from None
    finally:
        # What has found no other owner.
        left = [owner for owner in owners if not owner.closed]
        if left:
            reaper.close_within(min(_CLOSING, seconds_until(deadline)), left)
