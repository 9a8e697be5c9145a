"""An aio.Entrypoint that is used as a blocking one: it has a thread of its own, with an event loop.

Methods of its objects are a test's blocking ones.  Each is run by the task of its call, in the loop's thread: the loop
stands still while one waits in the kernel, as a serving thread does, and goes on while one awaits a call in its turn.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading

import anyio
import anyio.from_thread

import awaiting
import by_hand
import loops
from capmarshal import aio
from capmarshal._server.callbacks import refuse_misfit
from capmarshal._server.objects import Objects
from patience import PATIENCE


class _Awaitable:
    """An object whose methods are another one's, awaited."""

    def __init__(self, target):
        self._target = target

    def __getattr__(self, name):
        method = getattr(self._target, name)

        async def call(*arguments, **by_name):
            return await awaiting.run_blocking(method, *arguments, **by_name)

        return call


class _Objects(Objects):
    """What an entrypoint manages; calls find stand-ins whose methods are awaited."""

    def find(self, key):
        found = super().find(key)
        if found is None:
            return None
        target, *how = found
        made = (_Awaitable(target), *how)
        with self.lock:
            if key in self.known:
                self.known[key] = made
        return made


class _Calls:
    """Its calls; their answers know the object itself."""

    def outgoing(self, turn, target, owned):
        return super().outgoing(turn, target._target if isinstance(target, _Awaitable) else target, owned)


class _Served(aio.Entrypoint):
    """An entrypoint that is entered, left and closed by blocking code, and serves in a thread's event loop."""

    _colour = "blocking"
    _loop = None
    _loop_thread = _thread_portal = None

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._objects.__class__ = _Objects
        calls = self._dispatcher.calls
        calls.__class__ = type("_Calls", (_Calls, type(calls)), {})
        self._loop_pid = os.getpid()

    def __enter__(self):
        self._made().check_open()
        begun, self._loop_failure = threading.Event(), None
        name = f"capmarshal {self.label}"
        self._loop_thread = threading.Thread(target=self._run_loop, args=(begun,), name=name, daemon=True)
        self._loop_thread.start()
        assert begun.wait(PATIENCE), "the loop hangs"
        self._raise_failure()
        return self

    def _run_loop(self, begun):
        try:
            anyio.run(self._be_entered, begun, **self._loop)
        except BaseException as error:  # noqa: BLE001 - raised where it is entered, or left
            self._loop_failure = error
        finally:
            begun.set()

    async def _be_entered(self, begun):
        self._leave = anyio.Event()
        async with anyio.from_thread.BlockingPortal() as self._thread_portal:
            # The task ends by itself: in asyncio, anyio keeps the frame of one that was cancelled, and so this object.
            async with anyio.create_task_group() as group, self:
                begun.set()
                group.start_soon(self._leave_when_over)
                await self._leave.wait()
            self._thread_portal = None

    async def _leave_when_over(self):
        """Also where it is closed, the loop ends with the service."""
        await self._made()._over.wait()
        self._leave.set()

    def _raise_failure(self):
        failure, self._loop_failure = self._loop_failure, None
        if failure is not None:
            raise failure

    def __exit__(self, *_):
        if self._is_elsewhere():
            self._in_loop(self._be_left)
            self._loop_thread.join(2 * PATIENCE)
            assert not self._loop_thread.is_alive(), "the loop hangs"
            self._raise_failure()
        else:
            self._leave.set()

    async def _be_left(self):
        self._leave.set()

    def listen(self, where, target=None, *, for_client=None, mode=0o600):
        if not callable(for_client):
            super().listen(where, target, for_client=for_client, mode=mode)
            return
        # What is asked instead would take anything.
        refuse_misfit(for_client, 1, "for_client is called with a Caller")

        async def asked(caller):
            return await awaiting.run_blocking(for_client, caller)

        # It is awaited; what it gives is as blocking as what is managed.
        self._colour = "awaitable"
        try:
            super().listen(where, target, for_client=asked, mode=mode)
        finally:
            del self._colour

    def serve_forever(self):
        awaiting.finish(super().serve_forever(), self._loop)

    def dissolve(self, *arguments):
        self._in_loop(super().dissolve, *arguments)

    def close(self, timeout=None):
        self._in_loop(super().aclose, timeout)
        if self._is_elsewhere() and not self._made().served:
            self._loop_thread.join(2 * PATIENCE)

    def _is_elsewhere(self):
        """Whether its loop is another thread's, and of this process."""
        return self._loop_thread not in (None, threading.current_thread()) and self._loop_pid == os.getpid()

    def _in_loop(self, function, *arguments):
        """What an async function returns in its loop; in one that is made for it where that runs no more."""
        portal = self._thread_portal
        if portal is None or not self._is_elsewhere():
            return awaiting.finish(function(*arguments), self._loop)
        # Not this thread, which would wait for ever where a method keeps the loop.
        calling = by_hand.Concurrent(contextvars.copy_context().run, portal.call, function, *arguments)
        try:
            return calling.outcome()
        except RuntimeError:
            if self._thread_portal is not None:
                raise
            # It has ended meanwhile.
            return awaiting.finish(function(*arguments), self._loop)


@functools.cache
def served_by(loop):
    """The class of entrypoints that serve in such loops."""
    return type("Entrypoint", (_Served,), {"_loop": loops.LOOPS[loop], "__module__": "capmarshal"})
