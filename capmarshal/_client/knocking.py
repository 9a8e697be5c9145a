"""Calls through a door: knock once, then call on the channel that was handed in; and again where that is safe.

:func:`exchange` is for threads; what else awaits makes its calls of the same steps.
"""

from __future__ import annotations

import errno
import select
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.space import space
from capmarshal._client.channel import Channel, cm_call, with_table
from capmarshal._client.conversation import PIPE_ENDED
from capmarshal._client.unanswered import NeverRan, ServerGone, TooLate, Withdrawn
from capmarshal._descriptors.closing_jobs import Sender
from capmarshal._descriptors.inbox import RECORD_MAX, borrow, borrow_idle, give_back
from capmarshal._descriptors.private import pair_made
from capmarshal._kernel.deadline import current, in_force, origin, spent
from capmarshal._kernel.errors import TableFull, error_for
from capmarshal._kernel.native import FOREVER, NOW, NULL, TIMED_OUT, TOLD_DATA, TOLD_IN_ORDER, UNLIMITED, ffi, lib
from capmarshal._kernel.waiting import IN_FLIGHT_PATIENCE, Backoff, Patience, drive
from capmarshal._protocol.epitaph import revoked
from capmarshal._protocol.wire import HEAD_SIZE, KNOCK_RECORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Answer, Entries
    from capmarshal._kernel.waiting import Steps
    from capmarshal._typed.long import Payload

# Nanoseconds between two tries, at most, where others knock at a door faster than it is opened.
_CROWD = 8_000_000
# What is said where it does not become less full in time.
NO_ROOM = (
    "not made: the descriptor table is full (RLIMIT_NOFILE), and no other call of this process has ended: close "
    "descriptors, or raise the limit (ulimit -n)"
)
# Those that lead to other processes, by the number that each has, or had: a call of this process's own entrypoints may
# wait for the one that finds no room.
_channels: WeakValueDictionary[int, Channel] = WeakValueDictionary()
# When somebody who waited for another call's channel has had one.
_found_at = 0
# Wanted in each call.
_now_in_force = current.get


def _gone(door: Door, words: str) -> ServerGone | Withdrawn:
    """The error for a door that has hung up; its server may have said why."""
    reason = door.epitaph()
    return ServerGone(words, ran="no") if reason is None else Withdrawn(revoked(reason), ran="no")


def knock(door: Door, deadline: int) -> Steps[Channel]:
    """A new channel: one end kept, the other handed in at the door.

    Raises:
        ServerGone, TooLate, TableFull, TooManyInFlight, KernelError: as they say; nothing is left behind.
    """
    near, far = yield from pair_made("making a channel")
    if door.closing is None:
        door.closing = Sender()
    try:
        part = ffi.new("struct iovec *")
        memory = ffi.from_buffer(KNOCK_RECORD)
        part.iov_base, part.iov_len = memory, len(KNOCK_RECORD)
        patience = Patience(deadline)
        crowd = Backoff(deadline, most=_CROWD)
        while True:
            result = lib.cm_send(door.number, part, 1, [far.number], 1, NOW)
            if result == 0:
                channel = Channel(near, door.closing)
                if door.home is None:
                    _channels[near.number] = channel
                return channel
            if result in PIPE_ENDED:
                raise _gone(door, "the server is gone: its door is shut, and the call was not begun")
            if result in TIMED_OUT:
                # Not until it polls writable: that is when most of the queue is free, and who never polls takes all of
                # it long before (unix_writable(), net/unix/af_unix.c).
                if not (yield from crowd.wait(door.number, select.POLLOUT, shared=True)):
                    raise TooLate("not sent: the server did not come to its door", ran="no")
                continue
            if result == -errno.ETOOMANYREFS and (yield from patience.wait(door.number, 0, shared=True)):
                continue
            if result != -errno.EINTR:
                raise error_for(-result, "knocking at a door", "sendmsg(2), or ppoll(2)")
    except BaseException:
        near.close()
        raise
    finally:
        # At once: as long as we hold a copy, nothing wakes us when the server dies.
        far.close()


def _others_run() -> bool:
    """Whether a channel of this process's own is in use, which comes back when its call ends."""
    # Copied in one step: other threads call.
    idle = {id(channel) for door in space.doors() for channel in door.idle.copy()}
    made = (reference() for reference in _channels.valuerefs())
    # Of one that a forked child has of its parent's, the number is gone.
    return any(
        channel.usable and channel.near.number >= 0 and id(channel) not in idle
        for channel in made
        if channel is not None
    )


def channel_to(door: Door, deadline: int) -> Steps[tuple[Channel, bool]]:
    """A channel for a call, and whether it is an idle one.

    Where the descriptor table is full and other calls of this process run, one of those is waited for: until the
    deadline, or, where there is none, as long as who waits so finds one now and then.

    Raises:
        TooLate: none has ended in time.
        ServerGone, TableFull, TooManyInFlight, KernelError: as :func:`knock`.
    """
    global _found_at
    waits: Backoff | None = None
    began = 0
    while True:
        try:
            channel, kept = door.idle.pop(), True
        except IndexError:
            try:
                channel, kept = (yield from knock(door, deadline)), False
            except TableFull:
                if not _others_run():
                    raise
                now = time.monotonic_ns()
                began = began or now
                if deadline == FOREVER and now >= max(began, _found_at) + IN_FLIGHT_PATIENCE:
                    raise
                waits = waits or Backoff(deadline)
                if not (yield from waits.wait(-1, 0)):
                    raise TooLate(NO_ROOM, ran="no") from None
                continue
        if began:
            _found_at = time.monotonic_ns()
        return channel, kept


def check_time(deadline: int) -> int:
    """Refuses to begin a call too late; when it is, otherwise.

    Raises:
        TooLate: with words for the error that it becomes.
    """
    now = time.monotonic_ns()
    if now >= deadline:
        raise TooLate(f"not made: {origin()} had passed before", ran="no")
    return now


def again(door: Door, backoff: Backoff, *, kept: bool) -> Steps[None]:
    """Deals with a call that was certainly not read: returns when it is to be repeated on another channel.

    Args:
        door: through which the call is made.
        backoff: between refusals.
        kept: the channel was an idle one, and not made for this call.

    Raises:
        ServerGone, TooLate: it is not to be repeated.
    """
    if door.hung_up:
        raise _gone(door, "the server is gone; the call was not begun")
    # A kept channel may just have grown old; only a new one that ended is a refusal.
    if not kept and not (yield from backoff.wait(door.number, 0, shared=True)):
        raise TooLate("not sent: the server took no new channel", ran="no")


def too_late(late: TooLate, door: Door, began: int) -> TooLate:
    """What is said of a call through a door that has run out of time, with how long it took and why that may be."""
    words = _unserved(door)
    if not words:
        # Of one that has not, it is said what was not done.
        words = ("; the call may have run" if late.ran == "maybe" else "") + _in_a_circle()
    return TooLate(f"{late} in {spent(began)} ({origin()}){words}", late.ran)


def exchange(door: Door, key: bytes, payload: Payload, entries: Entries, numbers: Sequence[int]) -> Answer:
    """Makes a call through a door, see :meth:`Channel.go_on`, within the deadline that is in force.

    A call that was certainly not read is repeated on a new channel as long as the door has not hung up: the server's
    table was full, or it gave up an idle channel.

    Raises:
        TooLate, ServerGone: with words for the error that they become, but for whose call it was.
        TooManyInFlight, DescriptorsLost, TooLarge, ProtocolError, KernelError: as they say.
    """
    deadline = _now_in_force()
    until, began = UNLIMITED, 0
    # Mostly that very object.
    if deadline is not FOREVER and deadline != FOREVER:
        deadline = until = in_force()
        began = check_time(deadline)
    # A Long is longer.
    body: bytes = payload  # type: ignore[assignment]
    size, attached = len(payload), NULL
    if numbers or size > RECORD_MAX:
        body, size, attached = with_table(payload, entries, numbers)
    backoff: Backoff | None = None
    try:
        while True:
            channel: Channel
            kept = True
            try:
                channel = door.idle.pop()
            except IndexError:
                channel, kept = drive(channel_to(door, deadline))
            try:
                try:
                    inbox = borrow_idle()
                except IndexError:
                    inbox = borrow()
                # Here, and not in a method of its: to call one would cost as much as all else that is done here.
                result = cm_call(channel.near.number, channel.caller, key, body, size, attached, inbox.struct, until)
                if result < TOLD_DATA or result >= TOLD_IN_ORDER:
                    return channel.go_on(inbox, result, key, payload, entries, numbers, deadline)
                data: bytes = inbox.bytes[HEAD_SIZE:result]
                give_back(inbox)
                return data
            except NeverRan:
                backoff = backoff or Backoff(deadline)
                drive(again(door, backoff, kept=kept))
            finally:
                if channel.usable:
                    door.idle.append(channel)
    except TooLate as late:
        raise too_late(late, door, began) from None


def _unserved(door: Door) -> str:
    """For the text of an error: that nobody serves the entrypoint of a door, where it is of this process."""
    home = home_of(door)
    if home is not None and not home.served():
        return f"; nobody serves entrypoint {home.label!r}, which is of this process: {home.begun_by}"
    return ""


def _in_a_circle() -> str:
    """For the text of an error: that the server may have called back, where the caller is a method of this process."""
    for own in space.doors():
        home = home_of(own)
        if home is not None and home.takes_no_other():
            return (
                f"; the caller was a method of entrypoint {home.label!r}, which takes no other call meanwhile: "
                "if the server waited for it in turn, each waited for the other"
            )
    return ""
