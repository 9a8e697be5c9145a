"""What an engine runs for those who serve and watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from .engine import EngineError, Later

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from .engine import Handler, Watcher

    # Sends an answer: at once, or as soon as what it returns has been awaited.
    Answer: TypeAlias = Callable[[bytes], Awaitable[None] | None]

# Calls of one subject that run beside each other, unless an engine is told otherwise.
CONCURRENCY = 100

# Bytes of the calls that wait for one of them to end.  Each subject may have as many as the others have left free:
# what is asked at one keeps no room from the next.  What comes then is lost, and that is said once in so many seconds.
WAITING = 64 << 20

# Likewise of the answers that wait until the node has taken those before them: a subject that has as many begins no
# more calls meanwhile.  They wait; what runs already is answered all the same.
UNSENT = 64 << 20
_SAID_AGAIN = 60.0

_logger = logging.getLogger("capmarshal")

_UNANSWERED = "a call through a bridge's engine is not answered, since its handler raised"


class Room:
    """The places of one subject, and who waits for one."""

    def __init__(self, places: int) -> None:
        """All are free."""
        self.free = places
        self.waiting: deque[tuple[Handler, bytes, Answer]] = deque()
        self.waiting_bytes = 0
        self.unsent_bytes = 0
        # Whether those that wait are being begun: who makes room meanwhile leaves the next ones to that.
        self.is_beginning = False


class Handling:
    """Calls that run; only so many of one subject at a time, so that who is slow to answer holds up no other."""

    def __init__(self, concurrency: int = CONCURRENCY) -> None:
        """None yet."""
        self._concurrency = concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: set[Later] = set()
        self._waiting: set[Room] = set()
        self._waiting_bytes = 0
        self._unsent_bytes = 0
        self._said = -_SAID_AGAIN
        # As soon as somebody waits for it.
        self._all_ended: asyncio.Event | None = None

    def room(self) -> Room:
        """For one more subject."""
        return Room(self._concurrency)

    def start(self, room: Room, handler: Handler, body: bytes, answer: Answer) -> None:
        """Has a call run and answered, as soon as its room has a place, and has not too much to be sent.

        It is lost where too many bytes wait for that.
        """
        if not room.waiting and self._may_begin(room):
            self._begin(room, handler, body, answer)
        elif room.waiting_bytes + len(body) > WAITING - self._waiting_bytes:
            self._lose()
        else:
            room.waiting.append((handler, body, answer))
            room.waiting_bytes += len(body)
            self._waiting_bytes += len(body)
            self._waiting.add(room)

    async def finish(self, within: float) -> None:
        """Waits for those that run or wait, so many seconds; then cancels them."""
        self._all_ended = asyncio.Event()
        self._look_whether_all_have_ended()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._all_ended.wait()
        for room in self._waiting:
            room.waiting.clear()
        self._waiting.clear()
        for later in tuple(self._later):
            later.then(_drop)
        late = tuple(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _lose(self) -> None:
        """Who asks is told by nothing, and who reads the log now and then: it may be any stranger that asks so much."""
        now = time.monotonic()
        if now - self._said >= _SAID_AGAIN:
            self._said = now
            _logger.warning("calls through a bridge's engine are lost: too many wait for others")

    def _may_begin(self, room: Room) -> bool:
        """Whoever has nothing to be sent may, always: nothing of its own would end, and have those go on that wait."""
        return room.free > 0 and (room.unsent_bytes == 0 or room.unsent_bytes < UNSENT - self._unsent_bytes)

    def _begin(self, room: Room, handler: Handler, body: bytes, answer: Answer) -> None:
        try:
            made = handler(body)
            if isinstance(made, bytes):
                waited_for = self._send(room, made, answer)
                if waited_for is not None:
                    self._run(room, waited_for)
            elif isinstance(made, Later):
                room.free -= 1
                self._later.add(made)
                made.then(partial(self._came, room, made, answer))
            else:
                self._run(room, self._answered(room, made, answer))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else hears of it
            _note(error)

    def _run(self, room: Room, doing: Awaitable[None]) -> None:
        room.free -= 1
        task = asyncio.create_task(_logged(doing))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, room))

    async def _answered(self, room: Room, made: Awaitable[bytes], answer: Answer) -> None:
        waited_for = self._send(room, await made, answer)
        if waited_for is not None:
            await waited_for

    def _send(self, room: Room, body: bytes, answer: Answer) -> Awaitable[None] | None:
        """What is to be awaited for that, if anything is."""
        doing = answer(body)
        if doing is None:
            return None
        room.unsent_bytes += len(body)
        self._unsent_bytes += len(body)
        return self._sent(room, len(body), doing)

    async def _sent(self, room: Room, size: int, doing: Awaitable[None]) -> None:
        try:
            await doing
        finally:
            room.unsent_bytes -= size
            self._unsent_bytes -= size

    def _came(self, room: Room, later: Later, answer: Answer, body: bytes) -> None:
        self._later.discard(later)
        room.free += 1
        try:
            waited_for = self._send(room, body, answer)
            if waited_for is not None:
                self._run(room, waited_for)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else hears of it
            _note(error)
        self._next(room)

    def _ended(self, room: Room, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        room.free += 1
        self._next(room)

    def _next(self, room: Room) -> None:
        """One has ended."""
        if room.is_beginning:
            # It was answered as it began: by a recursion for each, so many that wait would be too deep.
            return
        room.is_beginning = True
        try:
            while room.waiting and self._may_begin(room):
                handler, body, answer = room.waiting.popleft()
                room.waiting_bytes -= len(body)
                self._waiting_bytes -= len(body)
                if not room.waiting:
                    self._waiting.discard(room)
                self._begin(room, handler, body, answer)
        finally:
            room.is_beginning = False
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
    except Exception as error:  # noqa: BLE001 - likewise
        _note(error)


def _note(error: Exception) -> None:
    """Who asks hears nothing: a fault is for who runs the bridge, and what the engine could not carry is not."""
    carried = not isinstance(error, (EngineError, TimeoutError))
    _logger.log(logging.ERROR if carried else logging.DEBUG, _UNANSWERED, exc_info=error)


def _drop(_body: bytes) -> None:
    """Nobody is answered any more."""
