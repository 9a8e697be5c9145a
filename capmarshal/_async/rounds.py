"""Where an event loop serves: how it takes turns, and runs methods.

Here by what anyio has, for event loops of any kind; :mod:`capmarshal._async.asyncio_rounds` does it for asyncio's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
from anyio import lowlevel

from capmarshal._async.ends import wait_for_ends
from capmarshal._kernel.native import FOREVER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskGroup

    from capmarshal._server.awaited_loop import AwaitedServer
    from capmarshal._server.objects import Objects


class Rounds:
    """Serves in the event loop in which it is made.

    Args:
        server: whose turns they are.
        objects: of the entrypoint.
        group: that methods run in, where the event loop has no quicker way.

    Attributes:
        scope: makes a cancel scope, also where no task runs.
    """

    scope: Callable[[], anyio.CancelScope]

    def __init__(self, server: AwaitedServer, objects: Objects, group: TaskGroup) -> None:
        self.scope = anyio.CancelScope
        self._server = server
        self._objects = objects
        self._group = group

    def run(self, method: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
        """Runs something in a task with a context of its own; what is to be kept until it ends."""
        self._group.start_soon(method, name=name)
        return None

    async def until(self, over: Callable[[], bool], at_once: int) -> None:
        """Takes turns until that is so: so many between two moments for others; waits where there is nothing to do."""
        server = self._server
        while not over():
            if server.take_some(at_once):
                await lowlevel.checkpoint()
            elif not over():
                await self._wait_for_more()

    async def _wait_for_more(self) -> None:
        server = self._server
        until = server.may_wait()
        if until == FOREVER:
            await anyio.wait_readable(server.number)
            return
        with anyio.move_on_after((until - time.monotonic_ns()) / 1e9):
            await anyio.wait_readable(server.number)

    async def wait_for_methods(self) -> None:
        """Waits until none runs."""
        # uvloop stops watching a descriptor a round later than it says, and this number may be another's then.
        await lowlevel.checkpoint()
        handlers = self._server.handling.handlers
        await wait_for_ends(self._objects, lambda: not handlers)
