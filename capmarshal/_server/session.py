"""One time of serving an entrypoint, and waiting for its end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from capmarshal._kernel.deadline import ahead, seconds_until

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds between two looks whether a session is over, where Ctrl-C has kept a waiter from passing its lock on.
_LOOK = 0.1
# Seconds.  How long the loop may take to end when no call is in progress, and how often is looked whether one is.
LOOP_PATIENCE, _LOOK_FOR_CALLS = 1.0, 0.01


def owned(lock: Any) -> bool:
    """Whether this thread holds a re-entrant lock; Condition asks it too, which keeps the method where it is."""
    owned: bool = lock._is_owned()  # noqa: SLF001 - no public one tells
    return owned


class Session:
    """One time of serving.

    Args:
        thread: that serves; None while it is yet to begin.

    Attributes:
        lock: held by it all the time: ``with`` lets go of it whatever Ctrl-C interrupts.
        over: nothing more will be done in it.
        given_up: it is not to begin.
        paused: its thread, which has nothing left to do but to end; another one is to go on with it.
    """

    __slots__ = ("given_up", "lock", "over", "paused", "thread")

    def __init__(self, thread: int | None) -> None:
        self.thread = thread
        self.lock = threading.Lock()
        self.over = self.given_up = False
        self.paused: threading.Thread | None = None

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return not self.over and self.lock.locked()

    def wait(self, deadline: int) -> bool:
        """Waits for its end; False if the deadline passed before."""
        while self.active:
            left = seconds_until(deadline)
            if left <= 0:
                return False
            if self.lock.acquire(timeout=min(left, _LOOK)):
                self.lock.release()
                return True
        return True

    def ends_by_itself(self, in_progress: Callable[[], str]) -> bool:
        """Whether it ends soon as no call is in progress: the deadline was short then, not the call long.

        Args:
            in_progress: the call that is; empty if none is.
        """
        deadline = ahead(LOOP_PATIENCE)
        while not in_progress() and seconds_until(deadline) > 0:
            if self.wait(ahead(_LOOK_FOR_CALLS)):
                return True
        return False
