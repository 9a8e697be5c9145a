"""How many bytes of another bridge's may be here at a time: what has come of its calls, and what is kept for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from capmarshal import TooLarge

from .shares import no_more_descriptors

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .shares import Part


# Seconds that somebody waits for bytes: those who have them may wait for who waits for these, as where calls go to and
# fro, each with much in it.
PATIENCE = 30.0


class Budget:
    """So many bytes; who waits for some of them gets them in turn."""

    def __init__(self, what: str, most: int, part: Part) -> None:
        """All of them are free, if the part has them; ``what`` they are for, for errors."""
        self._part = part
        self._what = what
        self._most = most
        self._spent = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def spent(self) -> int:
        """How many of them are in use."""
        return self._spent

    def has_room(self, size: int) -> bool:
        """Whether so many are there now, and nobody waits for some."""
        return self._spent + size <= self._most and not self._turn.locked() and self._part.has_room(size)

    def take(self, size: int) -> None:
        """Spends so many.

        Raises:
            TooLarge: they are not there now.
        """
        if self._spent + size > self._most:
            raise TooLarge(
                f"{size:,} bytes more of {self._what}, and of {self._most:,} that one bridge may have here at a time "
                f"{self._spent:,} are in use"
            )
        if not self._part.take(size):
            raise TooLarge(
                f"{size:,} bytes more of {self._what}, and other bridges have, or may need, all that is left"
            )
        self._spent += size

    async def wait(self, size: int) -> None:
        """Spends so many, as soon as they are there.

        Raises:
            TooLarge: they never will be, or were not in :data:`PATIENCE` seconds; or other links have them.
        """
        if not self._turn.locked() and self._spent + size <= self._most:
            # Nobody waits before.
            self.take(size)
            return
        # Where time is up, taking says why they are not there.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE), self._turn:
                while size <= self._most < self._spent + size:
                    self._freed.clear()
                    await self._freed.wait()
                self.take(size)
                return
        self.take(size)

    def give_back(self, size: int) -> None:
        """So many are free again."""
        self._spent -= size
        self._part.give_back(size)
        self._freed.set()


class Spending:
    """What one has spent of a budget."""

    def __init__(self, budget: Budget) -> None:
        """Nothing yet."""
        self._budget = budget
        self._size = 0
        self._shares: list[tuple[Part, int]] = []

    def take(self, size: int) -> None:
        """Spends so many more; raises as :meth:`Budget.take`."""
        self._budget.take(size)
        self._size += size

    async def wait(self, size: int) -> None:
        """Spends so many more as soon as they are there; raises as :meth:`Budget.wait`."""
        await self._budget.wait(size)
        self._size += size

    def hold(self, share: Part, count: int) -> None:
        """Takes so many of something besides.

        Raises:
            TooLarge: one may not have so many.
        """
        if not share.take(count):
            raise TooLarge(f"{count:,} descriptors more: {no_more_descriptors(share.held)}")
        self._shares.append((share, count))

    def end(self) -> None:
        """All of it is free again."""
        while self._shares:
            share, count = self._shares.pop()
            share.give_back(count)
        size, self._size = self._size, 0
        self._budget.give_back(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
