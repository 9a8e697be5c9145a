"""What a task of asyncio's awaits, and goes on from at once: it saves a turn of the event loop, with its system calls.

A future tells its task by way of the event loop: in its next turn, before which that asks the kernel what else there
is.  Where something that was received is what a task waits for, nothing else runs there, and it may go on at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

T = TypeVar("T")


class Prompt(Generic[T]):
    """As a future that one task awaits, once, and that nobody else has.

    Args:
        loop: in which that task runs.

    Attributes:
        is_done: it has a result, or an error, or is cancelled.
    """

    # What tasks ask of a future; the first also of whatever else is awaited.
    __slots__ = ("_asyncio_future_blocking", "_context", "_error", "_loop", "_result", "_wake", "is_done")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = self.is_done = False
        self._loop = loop
        self._error: BaseException | None = None
        self._wake: Callable[[Any], object] | None = None

    def answer(self, result: T) -> None:
        """Gives the result, and has the task go on: here and now, where no other one runs.

        Does nothing where it has one, or is cancelled.
        """
        if not self.is_done:
            self._result = result
            self._go_on()

    def fail(self, error: BaseException) -> None:
        """Likewise with an error, which is raised there, in the next turn of the loop.

        Raised here and now it would have the frames below, and they have it: only the garbage collector would let go.
        """
        if not self.is_done:
            self._error = error
            self._go_on(soon=True)

    def _go_on(self, *, soon: bool = False) -> None:
        self.is_done = True
        wake = self._wake
        if wake is None:
            return
        self._wake = None
        if not soon and asyncio.current_task(self._loop) is None:
            self._context.run(wake, self)
        else:
            self._loop.call_soon(wake, self, context=self._context)

    def __await__(self) -> Generator[Any, None, T]:
        if not self.is_done:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    # What a task asks ----------------------------------------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As of a future."""
        return self._loop

    def done(self) -> bool:
        """Likewise; asked by who looks whether all tasks wait, as anyio's ``wait_all_tasks_blocked()``."""
        return self.is_done

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context) -> None:
        """Likewise; by the task that awaits it."""
        self._wake, self._context = wake, context

    def cancel(self, msg: object = None) -> bool:
        """Likewise: the task goes on in the next turn, as who cancels it does not wait for that."""
        if self.is_done:
            return False
        self.is_done = True
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        if self._wake is not None:
            self._loop.call_soon(self._wake, self, context=self._context)
            self._wake = None
        return True

    def result(self) -> T:
        """Likewise."""
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                # Its traceback has this frame, which would have it.
                del error
        return self._result
