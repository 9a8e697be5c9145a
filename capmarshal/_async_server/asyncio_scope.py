"""What asyncio's tasks are told to end by: each time one is told it is cancelled once, as by ``Task.cancel()``.

A cancel scope of anyio's would cancel it wherever it awaits from then on, and so what it awaits to clean up.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from types import TracebackType


class AsyncioScope:
    """A block of a task's, the last thing that it does.  When it was told to, the block ends without an error.

    Args:
        loop: in which that task runs.

    Attributes:
        cancel_called: it was told to end.
    """

    __slots__ = ("_loop", "_task", "_timer", "cancel_called")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.cancel_called = False
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def end_after(self, seconds: float) -> None:
        """Tells it to end when so much time has passed."""
        self._timer = self._loop.call_later(seconds, self.cancel)

    def cancel(self) -> None:
        """Tells it to end.  Does nothing the second time."""
        if not self.cancel_called:
            self.insist()

    def insist(self) -> None:
        """Tells it to end, also where it was told before, and has gone on."""
        self.cancel_called = True
        if self._task is not None:
            self._task.cancel()

    def told_by_others(self) -> bool:
        """Whether its task was told to end otherwise."""
        return not self.cancel_called and self._task is not None and self._task.cancelling() > 0

    def __enter__(self) -> None:
        self._task = asyncio.current_task(self._loop)
        if self.cancel_called:
            self.insist()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
        return self.cancel_called and isinstance(error, asyncio.CancelledError)


async def wait_out(*tasks: asyncio.Task[Any]) -> None:
    """Waits for tasks that were told to end; who waits is cancelled, and they are in its place, whenever that is.

    Scopes of anyio's have cancelled who waits for good: what they say is not heard again.
    """
    with anyio.CancelScope(shield=True):
        while left := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError:
                for task in left:
                    task.cancel()
