"""Waiting for a descriptor, or for others to make room, until a deadline."""

from __future__ import annotations

import errno
import time

from capmarshal._kernel.errors import error_for
from capmarshal._kernel.native import FOREVER, TIMED_OUT, lib

_MILLISECOND = 1_000_000
_FIRST = 1 * _MILLISECOND
_LAST = 64 * _MILLISECOND

# How long a sender waits for others' descriptors in flight to be received when it has no deadline of its own.
IN_FLIGHT_PATIENCE = 10_000 * _MILLISECOND


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
    while (result := lib.cm_wait(number, events, deadline)) < 0:
        if result in TIMED_OUT:
            return False
        if result != -errno.EINTR:
            raise error_for(-result, doing)
    return True


class Backoff:
    """Waits a little longer each time.

    Args:
        deadline: when to give up.
    """

    __slots__ = ("_deadline", "_next")

    def __init__(self, deadline: int) -> None:
        self._deadline = deadline
        self._next = _FIRST

    def wait(self, number: int, events: int) -> bool:
        """Waits; False if there is no time left, before or after: what is begun too late only blurs what happened.

        Args:
            number: a descriptor whose end, or one of whose ``events``, ends the waiting early; borrowed.
            events: as for poll(2).
        """
        now = time.monotonic_ns()
        if now >= self._deadline:
            return False
        lib.cm_wait(number, events, min(self._deadline, now + self._next))
        self._next = min(self._next * 2, _LAST)
        return time.monotonic_ns() < self._deadline


class Patience(Backoff):
    """For ETOOMANYREFS: waits for the queues to drain until the deadline, or a while where there is none."""

    __slots__ = ()

    def __init__(self, deadline: int) -> None:
        super().__init__(time.monotonic_ns() + IN_FLIGHT_PATIENCE if deadline == FOREVER else deadline)
