"""The block of an entrypoint in asyncio's event loops: it may be left in another task than it was entered in.

Fixtures of tests do that, and whoever keeps several entrypoints and ends them in any order: so there is no task group
and no cancel scope, which belong to a task.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from capmarshal._async_server.asyncio_scope import wait_out
from capmarshal._async_server.block import Block

if TYPE_CHECKING:
    from capmarshal._async_server.serving import AwaitedService
    from capmarshal._server.session import Session


class AsyncioBlock(Block):
    """As :class:`Block`."""

    _task: asyncio.Task[None]

    def __init__(self, service: AwaitedService, session: Session) -> None:
        super().__init__(service, session)
        # Who has entered it; cancelled when the service fails, as by asyncio.TaskGroup.
        self._entered_by: asyncio.Task[Any] | None = asyncio.current_task()
        self._told = False

    async def enter(self) -> None:
        """As :meth:`Block.enter`."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name=self._name)
        # Also of one that is cancelled before it has begun.
        self._task.add_done_callback(lambda _: self._service.end(self._session))

    def _failed(self) -> None:
        if self._entered_by is not None:
            self._told = self._entered_by.cancel()

    async def _leave(self, error: BaseException | None, seconds: float) -> bool | None:
        # Whoever waits here hears of it by itself.
        entered_by, self._entered_by = self._entered_by, None
        if self._told and entered_by is not None and entered_by is asyncio.current_task():
            entered_by.uncancel()
        try:
            return await super()._leave(error, seconds)
        finally:
            # It keeps what has ended it, and that the frames in which it was: this in one of them.
            del self._task

    async def _wait(self) -> None:
        if self._service.is_here:
            await wait_out(self._task)

    async def _cut(self, error: BaseException) -> bool | None:  # noqa: ARG002 - it goes on to where it is caught
        self._service.close_at_once()
        if self._service.is_here:
            self._task.cancel()
            await wait_out(self._task)
        return False
