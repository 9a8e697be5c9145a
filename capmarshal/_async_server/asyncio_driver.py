"""Serving in asyncio's event loops, uvloop among them, by their own means: anyio's cost several times as much.

The epoll descriptor is watched for as long as the service lasts, and turns are taken where the loop tells that it is
readable, in no task.  What C has in its queues does not make it readable: where turns were left, the loop is told to
come round.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Any

from capmarshal._async_server.asyncio_scope import AsyncioScope, wait_out
from capmarshal._async_server.driver import Driver
from capmarshal._kernel.hands import Hands
from capmarshal._kernel.native import FOREVER
from capmarshal._kernel.weakly import weakly

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capmarshal._async_server.driver import Scope
    from capmarshal._kernel.hands import Job
    from capmarshal._server.awaited_loop import AwaitedServer
    from capmarshal._server.objects import Objects

# Seconds later than it is due: clocks of event loops are coarse, and one that rings too early rings twice.
_LATE = 0.001


def _nothing_left() -> bool:
    return True


def _keep_none(_task: asyncio.Task[None]) -> None:
    """Who has something begun keeps it, as long as it goes on."""


class AsyncioDriver(Driver):
    """As :class:`Driver`."""

    def __init__(self, server: AwaitedServer, objects: Objects) -> None:
        super().__init__(server, objects)
        # And how often it was cancelled here.
        self._serving: asyncio.Task[None] | None = None
        self._told = 0
        self._aside: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        # That of no call, in which those that come begin.
        self._context = contextvars.copy_context()
        self._at_once = 1
        self._over: Callable[[], bool] = _nothing_left
        self._ended: asyncio.Future[None] | None = None
        self._hands = Hands(_keep_none, weakly(self._serves, False))
        # Of these, who had nothing to do when the service ended.
        self._leaving: list[asyncio.Task[None]] = []
        # To come round, and when at the latest.
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._rings = FOREVER
        server.come_round_by(self._come_round)

    def _serves(self) -> bool:
        return self._ended is not None

    def scope(self) -> AsyncioScope:
        """As :meth:`Driver.scope`."""
        return AsyncioScope(self._loop)

    def end_after(self, seconds: float, scope: Scope) -> None:
        """As :meth:`Driver.end_after`."""
        assert isinstance(scope, AsyncioScope)  # noqa: S101 - made here
        scope.end_after(seconds)

    def insist(self, scope: Scope) -> None:
        """As :meth:`Driver.insist`."""
        assert isinstance(scope, AsyncioScope)  # noqa: S101 - made here
        # Its event loop may be closed.
        with contextlib.suppress(RuntimeError):
            scope.insist()

    def told_to_end(self) -> bool:
        """As :meth:`Driver.told_to_end`.

        ``asyncio.run()`` cancels all tasks at its end, in any order, before it lets one of them go on.
        """
        return self._serving is not None and self._serving.cancelling() > 0

    def was_told_by_loop(self, scope: Scope) -> bool:
        """As :meth:`Driver.was_told_by_loop`, which ``asyncio.run()`` does."""
        assert isinstance(scope, AsyncioScope)  # noqa: S101 - made here
        ends = self._serving is not None and self._serving.cancelling() > self._told
        return ends and scope.told_by_others()

    async def serve(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """As :meth:`Driver.serve`, in no task group: it may have been begun in one task, and be ended in another."""
        serving = self._serving = self._loop.create_task(function(), name=name)
        try:
            try:
                await asyncio.wait((serving,))
            except asyncio.CancelledError:
                # Unless the event loop has, whose end cancels all: told once more, it would insist, and cut off what
                # cleans up.
                if serving.cancelling() <= self._told:
                    self._tell(serving)
                # Some are begun to end others.
                while left := [task for task in (serving, *self._aside) if not task.done()]:
                    await wait_out(*left)
                raise
            while self._aside:
                await asyncio.wait(self._aside)
            if not serving.cancelled():
                serving.result()
        finally:
            # It keeps what has ended it, and that the frames in which it was.
            self._serving = None
            del serving

    def _takes_tasks(self) -> bool:
        return not self._loop.is_closed()

    def _run_soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    def stop(self) -> None:
        """As :meth:`Driver.stop`."""
        if self._serving is not None:
            self._tell(self._serving)

    def _tell(self, serving: asyncio.Task[None]) -> None:
        self._told += 1
        serving.cancel()

    def run_aside(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """As :meth:`Driver.run_aside`."""
        task = self._make_task(function, name)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    def aside(self) -> tuple[str, ...]:
        """As :meth:`Driver.aside`."""
        return tuple(task.get_name() for task in self._aside)

    def run(self, method: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """As :meth:`Driver.run`: the event loop itself keeps no task."""
        return self._make_task(method, name)

    def begin(self, job: Job, name: str) -> asyncio.Task[None]:  # noqa: ARG002 - the task is not its alone
        """As :meth:`Driver.begin`."""
        return self._hands.begin(job).task

    def _make_task(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        coroutine = function()
        try:
            return self._loop.create_task(coroutine, name=name)
        except BaseException:
            coroutine.close()
            raise

    async def until(self, over: Callable[[], bool], at_once: int) -> None:
        """As :meth:`Driver.until`."""
        self._context = contextvars.copy_context()
        self._at_once, self._over, self._ended = at_once, over, self._loop.create_future()
        number = self._server.number
        self._loop.add_reader(number, self._take)
        try:
            self._come_round()
            await self._ended
        finally:
            # It refers to the server.
            self._over, self._ended = _nothing_left, None
            # Its event loop may be gone.
            with contextlib.suppress(RuntimeError):
                self._loop.remove_reader(number)
                self._leaving = self._hands.end_idle()
            if self._timer is not None:
                self._timer.cancel()
                self._timer, self._rings = None, FOREVER

    def _come_round(self) -> None:
        if not self._soon and not self._loop.is_closed():
            self._soon = True
            self._loop.call_soon(self._take_left, context=self._context)

    def _take_left(self) -> None:
        self._soon = False
        self._take()

    def _ring(self) -> None:
        self._timer, self._rings = None, FOREVER
        self._take()

    def _take(self) -> None:
        """Takes some turns; what ends the service is raised where that is awaited."""
        ended, server = self._ended, self._server
        if ended is None or ended.done():
            return
        try:
            if self._over():
                ended.set_result(None)
            elif server.take_some(self._at_once):
                self._come_round()
            elif self._over():
                ended.set_result(None)
            elif (until := server.may_wait()) < self._rings:
                self._set_timer(until)
        except BaseException as error:  # noqa: BLE001 - it is raised there
            ended.set_exception(error)

    def _set_timer(self, until: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = (until - time.monotonic_ns()) / 1e9 + _LATE
        self._timer, self._rings = self._loop.call_later(left, self._ring, context=self._context), until

    async def end_methods(self, seconds: float, unheard: Callable[[], None]) -> None:
        """As :meth:`Driver.end_methods`, also of those whose tasks were cancelled before they had begun.

        Cancelled meanwhile, it tells them again.
        """
        concurrency = self._server.concurrency
        concurrency.insist_all()
        said, until = False, self._loop.time() + seconds
        try:
            # uvloop stops watching a descriptor a round later than it says, and this number may be another's then.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._insist_all()
        while tasks := [
            task
            for task in (*(handler.kept for handler in concurrency.handlers), *self._aside, *self._leaving)
            if isinstance(task, asyncio.Task) and not task.done()
        ]:
            try:
                left = None if said else max(until - self._loop.time(), 0)
                _, unfinished = await asyncio.wait(tasks, timeout=left)
            except asyncio.CancelledError:
                self._insist_all()
                continue
            if unfinished:
                said = True
                unheard()

    def _insist_all(self) -> None:
        self._server.concurrency.insist_all()
        for task in tuple(self._aside):
            task.cancel()
