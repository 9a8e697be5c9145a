"""What is to be done at a certain time, in the loop's own thread."""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING

from capmarshal._kernel.native import FOREVER
from capmarshal._kernel.weakly import weakly

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """Deadlines, and what is done then.  None is ever taken back: whatever is called looks whether it is still wanted.

    Attributes:
        next: when the first is due; CLOCK_MONOTONIC, nanoseconds, or FOREVER.
    """

    __slots__ = ("_ended", "_heap", "_numbers", "next")

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._ended = False
        self.next = FOREVER

    def after(self, nanoseconds: int, then: Callable[[], None]) -> None:
        """Has ``then`` called when that time has passed."""
        self.at(time.monotonic_ns() + nanoseconds, then)

    def at(self, when: int, then: Callable[[], None]) -> None:
        """Has ``then`` called at that time; CLOCK_MONOTONIC, nanoseconds.  Never, if the loop has ended for good."""
        if self._ended:
            return
        # First: where Ctrl-C comes in between, the loop comes round for nothing, and not never for something.
        self.next = min(self.next, when)
        heapq.heappush(self._heap, (when, next(self._numbers), then))

    def run(self) -> None:
        """Calls what is due; what that puts off anew, and what comes after an error, is left for the next time."""
        now, before = time.monotonic_ns(), next(self._numbers)
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] < before:
            try:
                self._heap[0][2]()
            except Exception:
                self._pop()
                raise
            # Last: what Ctrl-C interrupts is called again.  What was put off meanwhile is later.
            self._pop()
        self.next = self._heap[0][0] if self._heap else FOREVER

    def end(self) -> None:
        """Forgets all of it: the loop has ended for good, and what is to be done refers to it."""
        self._ended = True
        self._heap.clear()
        self.next = FOREVER

    def _pop(self) -> None:
        heapq.heappop(self._heap)
        self.next = self._heap[0][0] if self._heap else FOREVER


class Again:
    """Has something done in a while, and again and again as long as there is need.

    Args:
        timers: of the loop.
        nanoseconds: until then, each time.
        do: returns whether it is to be done again.
    """

    __slots__ = ("_do", "_nanoseconds", "_timers", "_waiting")

    def __init__(self, timers: Timers, nanoseconds: int, do: Callable[[], bool]) -> None:
        self._timers = timers
        self._nanoseconds = nanoseconds
        # Whose it is keeps this.
        self._do = weakly(do, otherwise=False)
        self._waiting = False

    def begin(self) -> None:
        """Begins; does nothing where it has begun already."""
        if not self._waiting:
            # First: Ctrl-C may have it done twice, but not never.
            self._timers.after(self._nanoseconds, self._run)
            self._waiting = True

    def _run(self) -> None:
        self._waiting = False
        try:
            again = self._do()
        except Exception:
            # What goes wrong with one is not to keep the others waiting.
            self.begin()
            raise
        if again:
            self.begin()
