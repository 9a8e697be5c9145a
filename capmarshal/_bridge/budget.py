"""How many bytes of another bridge's may be here at a time: what has come of its calls, and what is kept for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from capmarshal import TooLarge

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Budget:
    """So many bytes; who waits for some of them gets them in turn."""

    def __init__(self, what: str, most: int) -> None:
        """All of them are free; ``what`` they are for, for errors."""
        self._what = what
        self._most = most
        self._spent = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def spent(self) -> int:
        """How many of them are in use."""
        return self._spent

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
        self._spent += size

    async def wait(self, size: int) -> None:
        """Spends so many, as soon as they are there.

        Raises:
            TooLarge: they never will be.
        """
        if not self._turn.locked() and self._spent + size <= self._most:
            # Nobody waits before.
            self._spent += size
            return
        async with self._turn:
            while size <= self._most < self._spent + size:
                self._freed.clear()
                await self._freed.wait()
            self.take(size)

    def give_back(self, size: int) -> None:
        """So many are free again."""
        self._spent -= size
        self._freed.set()


class Spending:
    """What one has spent of a budget."""

    def __init__(self, budget: Budget) -> None:
        """Nothing yet."""
        self._budget = budget
        self._size = 0

    def take(self, size: int) -> None:
        """Spends so many more; raises as :meth:`Budget.take`."""
        self._budget.take(size)
        self._size += size

    async def wait(self, size: int) -> None:
        """Spends so many more as soon as they are there; raises as :meth:`Budget.wait`."""
        await self._budget.wait(size)
        self._size += size

    def end(self) -> None:
        """All of it is free again."""
        size, self._size = self._size, 0
        self._budget.give_back(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
