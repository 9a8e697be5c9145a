"""Waiting for a descriptor, or for others to make room, until a deadline.

What may have to wait and is done in threads and in event loops alike is written once, as *steps*: a generator that
yields what it waits for, and is sent what happened.  Whoever drives it decides how to wait; :func:`drive` blocks, and
:mod:`capmarshal._async_client.waiting` awaits.  What ends a wait, as Ctrl-C or a cancellation, is thrown in.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

from capmarshal._kernel.errors import error_for
from capmarshal._kernel.native import FOREVER, NOW, TIMED_OUT, lib

T = TypeVar("T")

_MILLISECOND = 1_000_000
_FIRST = 1 * _MILLISECOND
_LAST = 64 * _MILLISECOND

# Seconds for which anything is waited for at a time, and then looked at anew: a signal that comes just before a wait
# does not end it, and its handler is called after that.  cm_wait(), in C, has the same.
AT_A_TIME = 1.0

# How long a sender waits for others' descriptors in flight to be received when it has no deadline of its own.
IN_FLIGHT_PATIENCE = 10_000 * _MILLISECOND


class Wait(NamedTuple):
    """What steps wait for; they are sent what poll(2) then says of the descriptor, or 0 when ``until`` has passed.

    Attributes:
        number: the descriptor, borrowed; -1 for none.
        events: as for poll(2); that it has failed or hung up ends the wait too.
        until: when to give up.
        shared: others hold the same open file, or wait for the same number, as of a door: it is not for event loops.
    """

    number: int
    events: int
    until: int
    shared: bool = False


# Waits for nothing: an event loop runs what else is due.
LET_OTHERS_RUN = Wait(-1, 0, NOW)

# Yields what it waits for, is sent what happened, and returns what it was for.
Steps: TypeAlias = Generator[Wait, int, T]


def becomes_ready(number: int, events: int, deadline: int, doing: str) -> bool:
    """Waits until poll(2) reports something of a descriptor; False if it does not in time.

    Signal handlers run meanwhile, and what they raise ends it.

    Args:
        number: the descriptor, borrowed.
        events: as for poll(2); that it has failed or hung up is reported always.
        deadline: until when.
        doing: what for, as "waiting for a server to go".

    Raises:
        KernelError: it cannot be waited for (EINVAL where RLIMIT_NOFILE is 0).
    """
    return _happened(number, events, deadline, doing) != 0


def _happened(number: int, events: int, deadline: int, doing: str) -> int:
    """As :func:`becomes_ready`; what poll(2) reports, or 0."""
    while (result := lib.cm_wait(number, events, deadline)) < 0:
        if result in TIMED_OUT:
            return 0
        if result != -errno.EINTR:
            raise error_for(-result, doing)
    return result


def drive(steps: Steps[T]) -> T:
    """Takes all steps, waiting as a thread does."""
    try:
        wait = next(steps)
        while True:
            try:
                happened = _happened(wait.number, wait.events, wait.until, "waiting for the other side")
            except BaseException as error:  # noqa: BLE001 - it is theirs to deal with
                wait = steps.throw(error)
            else:
                wait = steps.send(happened)
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        # Ctrl-C between two steps is none that was thrown in.
        steps.close()


class Backoff:
    """Waits a little longer each time.

    Args:
        deadline: when to give up.
        most: nanoseconds that it waits at a time at most.
    """

    __slots__ = ("_deadline", "_most", "_next")

    def __init__(self, deadline: int, most: int = _LAST) -> None:
        self._deadline = deadline
        self._most = most
        self._next = _FIRST

    def until(self) -> int:
        """Until when to wait next; :data:`NOW` if there is no time left."""
        now = time.monotonic_ns()
        if now >= self._deadline:
            return NOW
        until = min(self._deadline, now + self._next)
        self._next = min(self._next * 2, self._most)
        return until

    def wait(self, number: int, events: int, *, shared: bool = False) -> Steps[bool]:
        """Waits; False if there is no time left, before or after: what is begun too late only blurs what happened.

        Args:
            number: a descriptor whose end, or one of whose ``events``, ends the waiting early; borrowed.
            events: as for poll(2).
            shared: as :class:`Wait` has it.
        """
        until = self.until()
        if until == NOW:
            return False
        yield Wait(number, events, until, shared)
        return time.monotonic_ns() < self._deadline


class Patience(Backoff):
    """For ETOOMANYREFS: waits for the queues to drain until the deadline, or a while where there is none."""

    __slots__ = ()

    def __init__(self, deadline: int) -> None:
        super().__init__(time.monotonic_ns() + IN_FLIGHT_PATIENCE if deadline == FOREVER else deadline)
