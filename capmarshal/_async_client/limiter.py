"""Whose turn it is: so many calls at a time, the others first come, first served."""

from __future__ import annotations

from collections import deque

import anyio

from capmarshal._async_client.waiting import within


class Limiter:
    """Has the tasks of one event loop take turns, so many at a time.

    Args:
        most: that may be taken at a time.
    """

    __slots__ = ("_free", "_waiting")

    def __init__(self, most: int) -> None:
        self._free = most
        # Of whoever waits; set when a turn is given to it, which it owns from then on.
        self._waiting: deque[anyio.Event] = deque()

    def take_now(self) -> bool:
        """Takes one, if any is free: none is as long as anybody waits."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def take(self, deadline: int) -> bool:
        """Takes the next one that is free; False if none is by the deadline."""
        given = anyio.Event()
        self._waiting.append(given)
        try:
            with within(deadline):
                await given.wait()
        except BaseException:
            if given.is_set():
                # Cancelled, and given one at the same time.
                self.give_back()
            else:
                self._waiting.remove(given)
            raise
        if not given.is_set():
            self._waiting.remove(given)
            return False
        return True

    def give_back(self) -> None:
        """Ends a turn: the next in line has it."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
