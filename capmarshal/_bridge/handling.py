"""What an engine runs for those who serve and watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from .engine import Later

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from .engine import Handler, Watcher

    # Sends an answer: at once, or as soon as what it returns has been awaited.
    Answer: TypeAlias = Callable[[bytes], Awaitable[None] | None]

# Calls that run beside each other, unless an engine is told otherwise.
CONCURRENCY = 100

# Bytes of the calls that wait for one of them to end; what comes then is lost.
WAITING = 64 << 20

_logger = logging.getLogger("capmarshal")

_UNANSWERED = "a call through a bridge's engine is not answered, since its handler raised"


class Handling:
    """Calls that run; only so many at a time."""

    def __init__(self, concurrency: int = CONCURRENCY) -> None:
        """None yet."""
        self._free = concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: set[Later] = set()
        self._waiting: deque[tuple[Handler, bytes, Answer]] = deque()
        self._waiting_bytes = 0
        # As soon as somebody waits for it.
        self._all_ended: asyncio.Event | None = None

    def start(self, handler: Handler, body: bytes, answer: Answer) -> None:
        """Has a call run and answered, as soon as it has a place; it is lost where too many bytes wait for one."""
        if self._free > 0:
            self._begin(handler, body, answer)
        elif self._waiting_bytes + len(body) > WAITING:
            _logger.warning("a call through a bridge's engine is lost: too many wait for those that run")
        else:
            self._waiting.append((handler, body, answer))
            self._waiting_bytes += len(body)

    async def finish(self, within: float) -> None:
        """Waits for those that run or wait, so many seconds; then cancels them."""
        self._all_ended = asyncio.Event()
        self._look_whether_all_have_ended()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._all_ended.wait()
        self._waiting.clear()
        for later in tuple(self._later):
            later.then(_drop)
        late = tuple(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, handler: Handler, body: bytes, answer: Answer) -> None:
        try:
            made = handler(body)
            if isinstance(made, bytes):
                waited_for = answer(made)
                if waited_for is not None:
                    self._run(waited_for)
            elif isinstance(made, Later):
                self._free -= 1
                self._later.add(made)
                made.then(partial(self._came, made, answer))
            else:
                self._run(self._answered(made, answer))
        except Exception:
            _logger.exception(_UNANSWERED)

    def _run(self, doing: Awaitable[None]) -> None:
        self._free -= 1
        task = asyncio.create_task(_logged(doing))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _answered(self, made: Awaitable[bytes], answer: Answer) -> None:
        waited_for = answer(await made)
        if waited_for is not None:
            await waited_for

    def _came(self, later: Later, answer: Answer, body: bytes) -> None:
        self._later.discard(later)
        self._free += 1
        try:
            waited_for = answer(body)
            if waited_for is not None:
                self._run(waited_for)
        except Exception:
            _logger.exception(_UNANSWERED)
        self._next()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        self._next()

    def _next(self) -> None:
        """One has ended."""
        while self._waiting and self._free > 0:
            handler, body, answer = self._waiting.popleft()
            self._waiting_bytes -= len(body)
            self._begin(handler, body, answer)
        if self._all_ended is not None:
            self._look_whether_all_have_ended()

    def _look_whether_all_have_ended(self) -> None:
        if self._all_ended is not None and not (self._tasks or self._later or self._waiting):
            self._all_ended.set()


async def tell(watcher: Watcher, body: bytes) -> None:
    """Tells a watcher of a body."""
    try:
        await watcher(body)
    except Exception:
        _logger.exception("what watches a subject of a bridge's engine raised")


async def _logged(doing: Awaitable[None]) -> None:
    try:
        await doing
    except Exception:
        _logger.exception(_UNANSWERED)


def _drop(_body: bytes) -> None:
    """Nobody is answered any more."""
