"""Tasks that do one thing after the other: where one of them waits for work, that begins at once.

A task for each thing costs more than to begin it, and one turn of the event loop before it, and another one after it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Protocol

from capmarshal._kernel.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger("capmarshal")

# Of those that have nothing to do, so many wait for work.
_IDLE_MOST = 100


class Job(Protocol):
    """One thing to do."""

    async def do(self) -> None:
        """Does it: once, in a context that has nothing of whoever has begun it, and leaves nothing that is in force."""

    def over(self) -> None:
        """It is done; or was cancelled, perhaps before it had begun.  Called once."""


class Hands:
    """Some of them.

    Args:
        adopt: is given the task of each new one.
        are_wanted: whether who has nothing to do is to wait for work.
    """

    def __init__(self, adopt: Callable[[asyncio.Task[None]], object], are_wanted: Callable[[], bool]) -> None:
        self._adopt = adopt
        self._are_wanted = are_wanted
        self._idle: list[Hand] = []

    def begin(self, job: Job) -> Hand:
        """Has something done; by whom, until it is over."""
        if self._idle:
            hand = self._idle.pop()
            hand.take(job)
            return hand
        hand = Hand(self, job)
        self._adopt(hand.task)
        return hand

    def rest(self, hand: Hand) -> bool:
        """One has nothing to do any more; whether it is to wait for work."""
        if len(self._idle) >= _IDLE_MOST or not self._are_wanted():
            return False
        self._idle.append(hand)
        return True

    def leave(self, hand: Hand) -> None:
        """One has ended."""
        if hand in self._idle:
            self._idle.remove(hand)

    def end_idle(self) -> list[asyncio.Task[None]]:
        """Ends those that have nothing to do; their tasks, which end soon."""
        tasks = [hand.task for hand in self._idle]
        self._idle.clear()
        for task in tasks:
            task.cancel()
        return tasks


class Hand:
    """One of them.

    Attributes:
        task: its own, until that has ended.
    """

    def __init__(self, hands: Hands, job: Job) -> None:
        """It begins with a job."""
        self._hands = hands
        self._job: Job | None = job
        self._loop = asyncio.get_running_loop()
        self._go: Prompt[None] = Prompt(self._loop)
        self.task: asyncio.Task[None] = self._loop.create_task(self._work(), context=contextvars.Context())
        self.task.add_done_callback(self._ended)

    def take(self, job: Job) -> None:
        """Another one, while it waits for work."""
        self._job = job
        self._go.answer(None)

    def cancel(self, job: Job) -> None:
        """Cancels a job, if it is not over."""
        if self._job is job:
            self.task.cancel()

    async def _work(self) -> None:
        while (job := self._job) is not None:
            await job.do()
            self._job = None
            job.over()
            # Not kept while there is none.
            del job
            # Where it was cancelled, and has not heeded that, the next one is not to be.
            if self.task.cancelling() or not self._hands.rest(self):
                return
            self._go = Prompt(self._loop)
            await self._go

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._hands.leave(self)
        # It keeps what has cancelled it, and that the frames of what it did.
        del self.task
        job, self._job = self._job, None
        if job is not None:
            job.over()
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("a fault in what a task does", exc_info=error)
