"""Message: bytes and descriptors in one record of a socket."""

from __future__ import annotations

import errno
import select
import socket
import sys
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor import number_of
from capmarshal._descriptors.refused import REFUSALS, refused_of
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.deadline import seconds_until, words_for
from capmarshal._kernel.errors import (
    DENIED,
    CallTimeout,
    Closed,
    DescriptorsLost,
    Disconnected,
    MessageTruncated,
    check,
    error_for,
)
from capmarshal._kernel.native import DESCRIPTORS_MAX, NOW, TIMED_OUT, ffi, lib
from capmarshal._kernel.numbers import check_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from capmarshal._descriptors.descriptor import Descriptor, HasFileno

# UIO_MAXIOV, include/uapi/linux/uio.h: sendmsg(2) gathers no more parts than this.
_PARTS_MAX = 1024

# Seconds that closing what was received is waited for.
_CLOSING = 1.0

_ENDED = "the other end of the socket was closed, or receiving was shut down"


def _option(number: int, option: int) -> int | None:
    """What kind of socket it is; None where a filter does not let that be asked.

    Raises:
        KernelError: no socket.
    """
    value = lib.cm_socket_option(number, option)
    return None if -value in DENIED else check(value, "asking what kind of socket this is")


def _record_socket(sock: HasFileno | int) -> int:
    """The descriptor of an AF_UNIX socket with records; what can't be asked whether it is one, is taken for one.

    Raises:
        TypeError: another kind of socket.
        KernelError: no socket.
    """
    number = number_of(sock)
    family, kind = _option(number, socket.SO_DOMAIN), _option(number, socket.SO_TYPE)
    if family not in (socket.AF_UNIX, None):
        raise TypeError(f"descriptors travel over AF_UNIX sockets only; this one's family is {family}")
    if kind == socket.SOCK_STREAM:
        raise TypeError("a STREAM socket has no records, so a message would lose its borders: use SEQPACKET or DGRAM")
    return number


def _bytes_of(buffer: Any) -> memoryview:
    """The bytes of a buffer, without a copy.

    Raises:
        TypeError: it is none, or not contiguous.
    """
    try:
        whole = memoryview(buffer)
    except TypeError:
        wanted = "bytes, another buffer, or several of them"
        raise TypeError(f"the data of a message are {wanted}, not {type(buffer).__qualname__}") from None
    if not whole.c_contiguous:
        raise TypeError("a buffer of a message is not contiguous: make bytes of it")
    # What has no bytes at all may not be cast where it has more than one dimension.
    return whole.cast("B") if whole.nbytes else memoryview(b"")


def _several(data: Any) -> Iterable[Any]:
    """An iterable of buffers as it is; anything else, a buffer among others, as the only one."""
    if isinstance(data, (list, tuple)):
        return data
    if isinstance(data, str) or not hasattr(type(data), "__iter__"):
        return (data,)
    try:
        memoryview(data)
    except TypeError:
        return data  # type: ignore[no-any-return]  # it is iterable
    return (data,)


def _parts(data: Buffer | Iterable[Buffer]) -> tuple[memoryview, ...]:
    """The buffers, as bytes; joined where they are more than one system call gathers."""
    parts = tuple(map(_bytes_of, _several(data)))
    return parts if len(parts) <= _PARTS_MAX else (memoryview(b"".join(parts)),)


def _ended(sock: int) -> bool:
    """Whether nothing can come any more: the other end is closed, or receiving was shut down by whoever holds a copy.

    Only POLLRDHUP tells that from an empty record, and on a DGRAM socket from there being nothing yet.
    """
    return bool(max(lib.cm_wait(sock, select.POLLRDHUP, NOW), 0) & select.POLLRDHUP)


def _is_seqpacket(sock: int) -> bool:
    return lib.cm_is_seqpacket(sock) == 1


class Message:
    """Bytes and descriptors that travel as one record: all of it arrives, or none.

    One that you make *borrows*: nothing of it is copied or closed, and the files must stay open until it is sent.  One
    that was received *owns* its descriptors until they are taken: use it as a context manager, or :meth:`close` it.

    Args:
        data: bytes, or an iterable of buffers, which are sent one after the other, without a copy.  Descriptors may
            travel without any bytes, but to many readers that is the end of the connection: recvmsg(2) returns 0.
        descriptors: up to 253 files, sockets or plain descriptors, borrowed.

    Raises:
        TypeError: not a buffer, or not a descriptor.
        ValueError: more than 253 descriptors (SCM_MAX_FD of the kernel).
        Closed: one of them is closed.
    """

    __slots__ = ("__weakref__", "_borrowed", "_owned", "_parts")

    def __init__(self, data: Buffer | Iterable[Buffer] = b"", descriptors: Iterable[HasFileno | int] = ()) -> None:
        self._owned: list[Descriptor | None] = []
        self._borrowed = tuple(descriptors)
        self._parts: tuple[memoryview, ...] = _parts(data)
        if len(self._borrowed) > DESCRIPTORS_MAX:
            raise ValueError(f"{len(self._borrowed)} descriptors; a record carries at most {DESCRIPTORS_MAX}")
        for file in self._borrowed:
            number_of(file)

    @property
    def data(self) -> bytes:
        """The bytes."""
        return b"".join(self._parts)

    @property
    def descriptors(self) -> tuple[HasFileno | int | None, ...]:
        """The descriptors, borrowed; None stands where one was taken."""
        return tuple(self._owned) if self._owned else self._borrowed

    def take(self, index: int) -> Descriptor:
        """Hands a received descriptor over: the caller owns it.

        Raises:
            IndexError: the message has no such descriptor.
            Closed: it was taken before, or the message is closed.
            ValueError: the message was made here, and only borrows.
        """
        if self._borrowed:
            raise ValueError("this message borrows its descriptors; only a received one has any to give")
        descriptor = self._owned[index]
        if descriptor is None or descriptor.closed:
            raise Closed(f"descriptor {index} of this message was taken or closed")
        self._owned[index] = None
        return descriptor

    def send(self, sock: HasFileno | int, timeout: float | None = None) -> None:
        """Sends the message as one record, and waits while the receiver's queue is full.

        Trusts no flag of ``sock``: it waits also where O_NONBLOCK is set, and never raises SIGPIPE.

        Args:
            sock: a connected AF_UNIX socket, SEQPACKET or DGRAM; borrowed.
            timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.

        Raises:
            CallTimeout: the queue stayed full; nothing was sent.
            Disconnected: the receiver is gone; nothing was sent.
            RecordTooBig: more bytes than the socket's buffer takes in one record.
            TooManyInFlight: see :class:`TooManyInFlight`; nothing was sent.
            KernelError: a descriptor is closed, or none that the kernel sends (io_uring), or anything else that
                sendmsg(2) says.
            ValueError: neither bytes nor descriptors: the receiver could not tell it from the end.
            TypeError: a STREAM socket, or no AF_UNIX one.
        """
        number = _record_socket(sock)
        if not self._borrowed and not self._owned and not any(part.nbytes for part in self._parts):
            raise ValueError("an empty message: its receiver could not tell it from the end of the connection")
        deadline = _deadline.after(timeout)
        descriptors = [number_of(file) for file in self._sendable()]
        held = [ffi.from_buffer(part) for part in self._parts]
        parts = ffi.new("struct iovec[]", [(memory, ffi.sizeof(memory)) for memory in held])
        try:
            while True:
                result = lib.cm_send(number, parts, len(held), descriptors, len(descriptors), deadline)
                if result == 0:
                    return
                if result in TIMED_OUT:
                    full = f"the receiver's queue stayed full, and nothing was sent {words_for(timeout, deadline)}"
                    raise CallTimeout(full, ran="no")
                if result != -errno.EINTR:
                    refused = refused_of(descriptors) if -result in REFUSALS else None
                    which = f", of which descriptor {refused.number} is {refused.why}" if refused else ""
                    raise error_for(-result, f"sending a message{which}")
        finally:
            # No traceback may keep these: where one is in a reference cycle, the garbage collector takes a memoryview
            # apart under what holds it, and crashes (cpython #77894, fixed in 3.12.7 and never in 3.11).
            held.clear()

    def _sendable(self) -> Iterable[HasFileno | int]:
        if None in self._owned:
            raise Closed("a descriptor of this message was taken, so the message cannot be sent on")
        return [file for file in self.descriptors if file is not None]

    @classmethod
    def receive(cls, sock: HasFileno | int, timeout: float | None = None, *, size: int = _inbox.RECORD_MAX) -> Message:
        """Receives one record, whoever sent it; all its descriptors are CLOEXEC.

        Args:
            sock: an AF_UNIX socket, SEQPACKET or DGRAM; borrowed.
            timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.
            size: bytes of room for the data.

        Returns:
            A message that owns its descriptors.

        Raises:
            CallTimeout: nothing came.
            Disconnected: the other end was closed, and everything it sent has been received; or some holder of this
                one has shut it down (shutdown(2)).  An empty record without descriptors looks the same then (unix(7));
                capmarshal sends none.
            DescriptorsLost: the kernel withheld descriptors; the others are closed, the bytes are in ``error.data``.
            MessageTruncated: the record is larger than ``size``; its descriptors are closed.
            KernelError: anything else that recvmsg(2) says.
            TypeError: a STREAM socket, or no AF_UNIX one; or ``size`` is no number.
            ValueError: no such size, or no time to wait.
        """
        number = _record_socket(sock)
        pooled = size == _inbox.RECORD_MAX
        if not pooled:
            check_whole(size, f"size is a number of bytes, not {size!r}", 0, sys.maxsize)
        deadline = _deadline.after(timeout)
        inbox = _inbox.borrow() if pooled else _inbox.Inbox(size)
        result = -errno.EINTR
        while result == -errno.EINTR or (result == -errno.ECONNRESET and _is_seqpacket(number)):
            # The kernel reports ECONNRESET once, and before the records that are still queued.
            result = lib.cm_receive(number, inbox.struct, deadline)
        if result < 0:
            if result == -errno.EAGAIN and _ended(number):
                raise Disconnected(_ENDED, ran="no")
            if result in TIMED_OUT:
                raise CallTimeout(f"no message came {words_for(timeout, deadline)}", ran="no")
            raise error_for(-result, "receiving a message")
        data, lost, owned = inbox.data(), inbox.struct.lost, inbox.steal()
        if pooled:
            _inbox.give_back(inbox)
        if lost:
            # Before they are closed.
            why = _inbox.why_lost()
            came = f"the {len(owned)} that came are closed"
            reaper.close_within(min(_CLOSING, seconds_until(deadline)), [owned])
            if lost & lib.CM_LOST_DESCRIPTORS:
                raise DescriptorsLost(errno.EMFILE, f"descriptors of a message were lost, {came}: {why}", data)
            raise MessageTruncated(errno.EMSGSIZE, f"a record larger than the {size} bytes of room for it", data)
        if result == 0 and _ended(number):
            raise Disconnected(_ENDED, ran="no")
        message = cls(data)
        message._owned = list(owned.steal_all())
        return message

    def close(self) -> None:
        """Closes the received descriptors that nobody took.  Borrowed ones stay open.

        What their sender made of them can take long to close: after a second that is left to a thread of the package's.
        """
        reaper.close_within(_CLOSING, [descriptor for descriptor in self._owned if descriptor is not None])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        # What copy.copy() asks, too: two owners would both close what was received.
        raise TypeError("a Message is neither copied nor pickled, for what it owns has one owner")

    def __repr__(self) -> str:
        size = sum(part.nbytes for part in self._parts)
        return f"<Message of {size} bytes and {len(self.descriptors)} descriptors>"
