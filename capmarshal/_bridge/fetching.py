"""Fetching what another side has lent: several asks in flight, and each repeated until it is answered.

How many are in flight is the credit that this side gives: it gets no more than it has asked for.  All that is fetched
by one line shares a :class:`Window`: ten things at a time are no more at once than one of them.  On a slow line, so
many chunks may come later than their asks wait, each time anew, and nothing ever would: so where asks stay unanswered
fewer are in flight, down to one, and more again when answers come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from capmarshal._bridge_engine.engine import EngineClosed, NotSent, TooLong, Unanswered
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._kernel.errors import ProtocolError

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

# Bytes that are asked for at a time, and how many asks are in flight, unless it is said otherwise.
CHUNK: Final = 512 << 10
WINDOW: Final = 4

# Seconds before an ask is repeated: the first time, and at most.
_SOON, _LATER = 0.02, 1.0

# Asks for some bytes: from which one on, and how many.
Ask: TypeAlias = Callable[[int, int], Awaitable[bytes]]


class Window:
    """How many asks may be in flight: halved by one that stays unanswered, one more when all of them were answered.

    Shared by all that is fetched by one line, in turns.

    Attributes:
        most: of them.
    """

    def __init__(self, most: int = WINDOW) -> None:
        """All of them may.

        Raises:
            ValueError: none may.
        """
        if most < 1:
            raise ValueError(f"a window is of one ask at least, not of {most}")
        self.most = most
        self._open = most
        self._answered = 0
        self._free = asyncio.Semaphore(most)
        # Places that end when whoever has them leaves.
        self._ending = 0

    async def __aenter__(self) -> Self:
        await self._free.acquire()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._leave()

    def narrow(self) -> None:
        """An ask has stayed unanswered."""
        ending = self._open - max(1, self._open // 2)
        self._open -= ending
        self._ending += ending
        self._answered = 0

    def widen(self) -> None:
        """An ask was answered."""
        self._answered += 1
        if self._answered >= self._open < self.most:
            self._answered = 0
            self._open += 1
            self._leave()

    def _leave(self) -> None:
        if self._ending:
            self._ending -= 1
        else:
            self._free.release()


def never() -> bool:
    """Asks are repeated for as long as whoever fetches waits."""
    return False


async def fetch(
    ask: Ask,
    size: int,
    into: Dataspace | Buffer,
    *,
    window: Window | None = None,
    chunk: int = CHUNK,
    give_up: Callable[[], bool] = never,
) -> None:
    """Fetches so many bytes into a buffer or a Dataspace; it has all of them when this returns.

    An ask that was not sent, or not answered, is repeated after a pause that grows, for as long as the caller waits:
    what ends that is a deadline of the caller's, being cancelled, or ``give_up()``.  Where this raises, any of the
    bytes may have been written; none is written later, and no ask is waited for any more.

    Args:
        ask: asks for some of them.  It waits as long as one chunk may take, and then raises Unanswered.
        size: bytes in all.
        into: what they are written to, from its start; borrowed.
        window: how many asks are in flight at most, of these and of others; None: :data:`WINDOW` of these.
        chunk: so many bytes are asked for at a time.
        give_up: whether an ask that was not answered is repeated no more; asked each time.

    Raises:
        ProtocolError: an answer has not the length that was asked for.
        NotSent, Unanswered: of an ask that is not repeated, since ``give_up()`` said so, or since the engine was
            closed.
        ValueError: there is no room for so many bytes; or chunk or size are none.
        TypeError: it can't be written to.
        Exception: what else an ask or the writing has raised; the first of several.
    """
    if size < 0 or chunk < 1:
        raise ValueError("a size is 0 or more bytes, and a chunk is 1 or more")
    window = Window() if window is None else window
    if isinstance(into, Dataspace):
        if size > into.size:
            raise ValueError(f"{size} bytes can't be fetched into {into.size}")
        await _Fetching(ask, size, into.write, window, chunk, give_up).run()
        return
    # Released with the block: whoever has the buffer may resize or seal it, also while an error is looked at.
    with memoryview(into) as given, given.cast("B") if given.nbytes else memoryview(bytearray()) as view:
        if view.readonly:
            raise TypeError("what is fetched into can be written to")
        if size > view.nbytes:
            raise ValueError(f"{size} bytes can't be fetched into {view.nbytes}")

        def write(data: Buffer, offset: int) -> None:
            view[offset : offset + len(memoryview(data))] = data

        await _Fetching(ask, size, write, window, chunk, give_up).run()


class _Fetching:
    """One thing that is fetched: as many workers as asks may be in flight, each with one chunk after the other."""

    def __init__(
        self,
        ask: Ask,
        size: int,
        write: Callable[[bytes, int], None],
        window: Window,
        chunk: int,
        give_up: Callable[[], bool],
    ) -> None:
        self._ask = ask
        self._size = size
        self._write = write
        self._window = window
        self._chunk = chunk
        self._give_up = give_up
        # From where on nobody has asked; and how many bytes are not there.
        self._next = 0
        self._missing = size

    async def run(self) -> None:
        """Returns when all is written."""
        error = await _all_ended([self._work() for _ in range(min(self._window.most, -(-self._size // self._chunk)))])
        if error is None:
            if self._missing:
                # A task that is cancelled from within has no error.
                raise Unanswered("an ask for a chunk was cancelled, and not by whoever fetches")
            return
        try:
            # One ask is like another: who fetches is told what the first that failed was.
            raise error
        finally:
            # Its traceback has this frame, which would have it.
            del error

    async def _work(self) -> None:
        while (offset := self._next) < self._size:
            self._next += self._chunk
            size = min(self._chunk, self._size - offset)
            data = await self._answer(offset, size)
            if _cancelled():
                # By an ask that does not heed it.
                return
            if len(data) != size:
                raise ProtocolError(f"{size:,} bytes were asked for, of what is lent, and {len(data):,} came")
            self._write(data, offset)
            self._missing -= size

    async def _answer(self, offset: int, size: int) -> bytes:
        """The answer to an ask, repeated until there is one."""
        pause = _SOON
        while True:
            async with self._window:
                try:
                    data = await self._ask(offset, size)
                except (EngineClosed, TooLong):
                    # It never will be sent.
                    raise
                except (NotSent, Unanswered) as error:
                    if self._give_up():
                        raise
                    if isinstance(error, Unanswered):
                        self._window.narrow()
                else:
                    self._window.widen()
                    return data
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LATER)


async def _all_ended(doing: Sequence[Coroutine[Any, Any, None]]) -> BaseException | None:
    """Does all of it beside each other, and returns when nothing of it runs; the first error, which ends the others.

    An asyncio.TaskGroup that is cancelled is in a circle with the error of that, whose traceback has all that whoever
    waits for it holds: only the garbage collector lets go of it.
    """
    tasks = [asyncio.create_task(each) for each in doing]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        return next((error for task in tasks if task.done() and (error := _error_of(task)) is not None), None)
    finally:
        for task in tasks:
            task.cancel()
        await _ended(tasks)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Returns when they have ended, and not before, however often whoever waits is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        # Looked at: asyncio has nothing to say of an error that nobody has seen.
        _error_of(task)
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
