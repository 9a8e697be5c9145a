"""What an engine runs for those who serve and watch."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .engine import Handler, Watcher

# Calls that run beside each other, unless an engine is told otherwise.
CONCURRENCY = 100

_logger = logging.getLogger("capmarshal")


class Handling:
    """Calls that run, each in a task; only so many at a time."""

    def __init__(self, concurrency: int = CONCURRENCY) -> None:
        self._room = asyncio.Semaphore(concurrency)
        self._running: set[asyncio.Task[None]] = set()

    async def start(self, handler: Handler, body: bytes, answer: Callable[[bytes], Awaitable[None]]) -> None:
        """Has a call run and answered; returns when it has a place."""
        await self._room.acquire()
        task = asyncio.create_task(self._run(handler, body, answer))
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def finish(self, within: float) -> None:
        """Waits for those that run, so many seconds; then cancels them."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=within)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, handler: Handler, body: bytes, answer: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            await answer(await handler(body))
        except Exception:
            _logger.exception("a call through a bridge's engine is not answered, since its handler raised")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.release()


async def tell(watcher: Watcher, body: bytes) -> None:
    """Tells a watcher of a body."""
    try:
        await watcher(body)
    except Exception:
        _logger.exception("what watches a subject of a bridge's engine raised")
