"""Where an event loop serves: how it takes turns, and runs methods.

Here by what anyio has, for event loops of any kind; for asyncio's, :mod:`capmarshal._async_server.asyncio_driver`.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio import lowlevel

from capmarshal._async_server.call_ends import wait_for_ends
from capmarshal._kernel.native import FOREVER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    import trio
    from anyio.abc import TaskGroup

    from capmarshal._kernel.hands import Job
    from capmarshal._server.awaited_loop import AwaitedServer
    from capmarshal._server.objects import Objects


class Scope(Protocol):
    """A block of a task's, which ends without an error when that was told to end."""

    @property
    def cancel_called(self) -> bool:
        """It was told to."""

    def cancel(self) -> None:
        """Tells it to."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...


class Driver:
    """Serves in the event loop in which it is made.

    Args:
        server: whose turns they are.
        objects: of the entrypoint.
    """

    _group: TaskGroup
    # While it serves, where that is trio.
    _token: trio.lowlevel.TrioToken | None = None

    def __init__(self, server: AwaitedServer, objects: Objects) -> None:
        # Its calls refer to this; who awaits it keeps it.
        self._server = weakref.proxy(server)
        self._objects = objects
        self._thread = threading.get_ident()
        # The names of what runs beside methods.
        self._names: list[str] = []

    def scope(self) -> Scope:
        """Makes what tells a task to end; also where none runs."""
        return anyio.CancelScope()

    def end_after(self, seconds: float, scope: Scope) -> None:
        """Has a scope tell its task to end when so much time has passed."""
        assert isinstance(scope, anyio.CancelScope)  # noqa: S101 - made here
        scope.deadline = anyio.current_time() + seconds

    def insist(self, scope: Scope) -> None:
        """Has a scope tell its task to end, also where it was told before, and has gone on."""
        scope.cancel()

    def told_to_end(self) -> bool:
        """Whether all that runs here is told to end; asked in a task that has been cancelled."""
        return anyio.current_effective_deadline() == -math.inf

    def was_told_by_loop(self, scope: Scope) -> bool:  # noqa: ARG002 - a scope of anyio's knows by itself
        """Whether a scope's task was told to end as all are in the event loop, which ends."""
        return False

    async def serve(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Awaits something in a task with a context of its own, and then all others that were run here."""
        import trio

        self._token = trio.lowlevel.current_trio_token()
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(function, name=name)
        except BaseExceptionGroup as group:
            raise_signal(group)
            raise
        finally:
            self._token = None

    def run_in_loop(self, function: Callable[[], object]) -> bool:
        """Calls a function that tells or begins tasks: at once in the event loop's thread, else soon in that.

        Returns:
            Whether it was, or will be; it is not where that serves no more, and no task can be begun.
        """
        if not self._takes_tasks():
            return False
        if threading.get_ident() == self._thread:
            function()
            return True
        try:
            self._run_soon(function)
        except RuntimeError:
            # It has ended meanwhile.
            return False
        return True

    def _takes_tasks(self) -> bool:
        return self._token is not None

    def _run_soon(self, function: Callable[[], object]) -> None:
        """Has it called in the event loop, from another thread.

        Raises:
            RuntimeError: the event loop has ended.
        """
        if self._token is not None:
            self._token.run_sync_soon(function)

    def stop(self) -> None:
        """Tells all that runs here to end."""
        self._group.cancel_scope.cancel()

    def run(self, method: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
        """Runs a method in a task with a context of its own; what is to be kept until it ends."""
        self._group.start_soon(method, name=name)
        return None

    def begin(self, job: Job, name: str) -> object:
        """Likewise, where the method leaves nothing in its context: in a task that may have run others."""
        return self.run(job.do, name)

    def run_aside(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Runs something else likewise, and keeps it."""

        async def run() -> None:
            try:
                await function()
            finally:
                self._names.remove(name)
                self._objects.tell()

        self._names.append(name)
        try:
            self._group.start_soon(run, name=name)
        except BaseException:
            self._names.remove(name)
            raise

    def aside(self) -> tuple[str, ...]:
        """The names of all that runs so now."""
        return tuple(self._names)

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

    async def end_methods(self, seconds: float, unheard: Callable[[], None]) -> None:
        """Tells the methods that run to end, and waits for them, and for what runs aside and is told by others.

        Args:
            seconds: that they may take, before
            unheard: is called.
        """
        concurrency = self._server.concurrency
        concurrency.insist_all()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(seconds):
                await self._wait_for_methods()
                return
            unheard()
            await self._wait_for_methods()

    async def _wait_for_methods(self) -> None:
        handlers = self._server.concurrency.handlers
        await wait_for_ends(self._objects, lambda: not handlers and not self._names)


def ends_all(error: BaseException, driver: Driver) -> bool:
    """Whether all that runs there is told to end, and not one call alone."""
    try:
        return isinstance(error, anyio.get_cancelled_exc_class()) and driver.told_to_end()
    except RuntimeError:
        # The event loop is gone, and what was left in it is thrown away.
        return True


def raise_signal(group: BaseExceptionGroup[BaseException]) -> None:
    """Raises what a signal has brought of what tasks have raised, by itself; does nothing where none has."""
    signalled, _ = group.split((KeyboardInterrupt, SystemExit))
    error: BaseException | None = signalled
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        raise error from None
