"""Serving in an event loop: a task takes the server's turns, and awaits its epoll descriptor when there is nothing.

Methods run in tasks of the same group, so that none outlives the time of serving.  What is to end the service - Ctrl-C,
a fault that would come again - is raised where the service is awaited, not in a group of errors.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
from anyio import lowlevel

from capmarshal._async.handlers import AwaitingCalls, current, ends_all
from capmarshal._async.rounds import Rounds
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER
from capmarshal._server.awaited_loop import AwaitedServer
from capmarshal._server.dispatch import Dispatcher
from capmarshal._server.escapes import BySignal, nothing
from capmarshal._server.service import Service
from capmarshal._server.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import TaskGroup

    from capmarshal._capabilities.door import Door
    from capmarshal._protocol.wire import Entry
    from capmarshal._server.calls import Calls
    from capmarshal._server.journal import Journal
    from capmarshal._server.loop import Server
    from capmarshal._server.objects import Objects

# Turns between two moments in which other tasks run.
_AT_ONCE = 8
# Seconds that methods may take to end when they are told to, before it is said which do not.
_PATIENCE = 1.0


# What this event loop serves.
_services: lowlevel.RunVar[weakref.WeakSet[AwaitedService]] = lowlevel.RunVar("capmarshal.services")


def _here() -> weakref.WeakSet[AwaitedService]:
    try:
        return _services.get()
    except LookupError:
        _services.set(weakref.WeakSet())
        return _services.get()


class AwaitingDispatcher(Dispatcher):
    """As :class:`Dispatcher`, for an entrypoint whose methods are awaited."""

    def _make_calls(self, objects: Objects, journal: Journal) -> Calls:
        return AwaitingCalls(objects, journal, weakref.ref(self))

    @property
    def begun_by(self) -> str:
        """What has it served, for people."""
        return "enter it (async with), or await serve_forever()"

    def takes_no_other(self) -> bool:
        """Whether one call keeps its thread from running others: while it is awaited, it does not."""
        return False

    def method_here(self) -> object | None:
        """The method that runs here, in its task or one that it has started; of whichever entrypoint."""
        return current.get()

    def call_inline(
        self,
        badge: bytes,  # noqa: ARG002 - it is not made
        method: bytes,
        payload: bytes,  # noqa: ARG002
        entries: Sequence[Entry] | None,  # noqa: ARG002
        numbers: Sequence[int],  # noqa: ARG002
    ) -> NoReturn:
        """Refuses a blocking call that is made in the event loop's own thread.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{method.decode()}() was called by a blocking proxy in the thread of the event loop that is to run it: it "
            "would wait for itself; cast to the awaitable twin of the interface and await the call, or make it in "
            "another thread: await anyio.to_thread.run_sync(...)"
        )


class AwaitedService(Service):
    """As :class:`Service`, in an event loop."""

    _server: AwaitedServer
    _calls: AwaitingCalls
    _group: TaskGroup
    _rounds: Rounds

    def __init__(
        self, label: str, door: Door, objects: Objects, calls: Calls, server: Server, journal: Journal
    ) -> None:
        super().__init__(label, door, objects, calls, server, journal)
        assert isinstance(server, AwaitedServer)  # noqa: S101 - by construction
        assert isinstance(calls, AwaitingCalls)  # noqa: S101 - likewise
        calls.handling = server.handling
        # Calls that run when it is to end are waited for, however long they take.
        self._patient = True
        self._over: anyio.Event | None = None
        self._loop: Any = None
        self._failure: BaseException | None = None

    def claim(self) -> Session:
        """Makes the caller the one who serves, as :meth:`serve_session` then does.

        Raises:
            Closed, RuntimeError: it is closed, or served already.
        """
        self.check_open()
        session = Session(threading.get_ident())
        session.lock.acquire()
        self._loop = None
        try:
            self._claim(session)
        except BaseException:
            session.lock.release()
            raise
        # Before its first turn: a blocking call that is made here would wait for that.
        self._calls.thread = threading.get_ident()
        self._over, self._patient = anyio.Event(), True
        # Of asyncio, whose program may close it whatever runs there; trio's ends with all that does.
        asyncio: Any = sys.modules.get("asyncio")
        with contextlib.suppress(RuntimeError, AttributeError):
            self._loop = asyncio.get_running_loop()
        _here().add(self)
        return session

    def end(self, session: Session) -> None:
        """Ends what :meth:`claim` began; does nothing the second time."""
        if session.over:
            return
        try:
            self._calls.thread = None
            self._end(session)
        finally:
            session.lock.release()
            # Its event loop may be gone.
            with contextlib.suppress(RuntimeError):
                if self._over is not None:
                    self._over.set()

    async def serve_session(self, session: Session) -> None:
        """Serves until it is told to end, in the event loop that this is awaited in.

        Raises:
            KeyboardInterrupt, SystemExit: in the main thread, brought by a signal.
            KernelError: of epoll_pwait(2).
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._calls.ends_service = BySignal() if in_main_thread else nothing
        self._failure = None
        try:
            async with anyio.create_task_group() as group:
                self._group, self._rounds = group, self._make_rounds(group)
                self._calls.rounds = self._rounds
                self._calls.escaped = self._escaped
                self._server.ask_by(self._ask)
                # A task of its own, for its context: what is in force here is not of the calls that come.
                group.start_soon(self._serve, name=f"capmarshal {self._label}")
        finally:
            self._calls.forget_all()
            self.end(session)
        if self._failure is not None:
            raise self._failure

    def _make_rounds(self, group: TaskGroup) -> Rounds:
        asyncio: Any = sys.modules.get("asyncio")
        if asyncio is not None and anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            # Where it is used, it is imported already.
            from capmarshal._async.asyncio_rounds import AsyncioRounds

            return AsyncioRounds(self._server, self._objects, group)
        return Rounds(self._server, self._objects, group)

    def _escaped(self, error: BaseException) -> None:
        """Ends the service for what a method has raised."""
        if self._server.number < 0:
            # In a forked child, whose event loop is its parent's.
            raise error
        self._failure = error
        self._group.cancel_scope.cancel()

    def _ask(self, asked: Awaitable[object], then: Callable[[object, BaseException | None], None]) -> anyio.CancelScope:
        """Awaits something of the application's that is no call, in a task; what cancels it."""
        scope = self._rounds.scope()

        async def ask() -> None:
            given, failure = None, None
            try:
                with scope:
                    given = await asked
            except BaseException as error:
                if ends_all(error):
                    raise
                failure = error
            if not scope.cancel_called:
                then(given, failure)
            if failure is not None and not isinstance(failure, Exception) and self._calls.ends_service(failure):
                self._escaped(failure)

        self._group.start_soon(ask, name="for_client")
        return scope

    async def _serve(self) -> None:
        server = self._server
        _deadline.current.set(FOREVER)
        try:
            server.begin()
            await self._rounds.until(lambda: server.told_to_end, _AT_ONCE)
            if server.number >= 0:
                await self._drain()
        except BaseException as error:
            server.end()
            if isinstance(error, GeneratorExit):
                # Its event loop is gone, and nothing is awaited any more.
                raise
            await self._end_handlers()
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            self._failure = error
        else:
            server.end()
            await self._end_handlers()
        self._group.cancel_scope.cancel()

    async def _drain(self) -> None:
        """Has calls that run end, and their answers sent."""
        began, server, handling = time.monotonic_ns(), self._server, self._server.handling
        server.begin_drain()
        # One at a time: a channel whose call is answered has no other one read.
        await self._rounds.until(lambda: server.drained(patient=self._patient), 1)
        if handling.handlers:
            words = "%s: not ended in %.1f s, and told to end: who has called gets no answer"
            self._journal.error(None, "left", words, handling.in_progress(), (time.monotonic_ns() - began) / 1e9)

    async def _end_handlers(self) -> None:
        """Tells the methods that still run to end, and says in the log which of them do not."""
        handling = self._server.handling
        handling.cancel_all()
        with anyio.move_on_after(_PATIENCE, shield=True):
            await self._rounds.wait_for_methods()
            return
        words = "%s: told to end, and not ended yet: it is waited for"
        self._journal.error(None, "swallowed", words, handling.in_progress())
        with anyio.CancelScope(shield=True):
            await self._rounds.wait_for_methods()

    async def finish(self, deadline: int, send_until: int) -> bool:
        """Ends service as :meth:`close` does, and awaits that.

        Returns:
            False if calls still run at the deadline; service ends when they have.
        """
        first = self._begin_end(send_until)
        session = self._session
        if not first or self.within_call:
            self._release_if_over(session)
            return True
        return await self._wait(session, _deadline.seconds_until(deadline))

    async def depart(self, seconds: float) -> None:
        """Ends service as :meth:`leave` does, and awaits that: what runs after the bound is told to end.

        Args:
            seconds: the bound.
        """
        self._patient = False
        self._begin_end(_deadline.after(seconds))
        await self._wait(self._session, math.inf)

    def _loop_is_closed(self) -> bool:
        return self._loop is not None and self._loop.is_closed()

    async def _wait(self, session: Session | None, seconds: float) -> bool:
        """Waits for the end of serving, and lets go then; whether it has come."""
        if session is not None and session.active:
            if self._loop_is_closed():
                # Nothing in it ever goes on, nor is thrown away: anyio keeps what it has left.
                self._server.end()
                self._calls.forget_all()
                self.end(session)
            elif self not in _here():
                # Another thread's, whose event cannot be awaited here.
                return await anyio.to_thread.run_sync(session.wait, _deadline.ahead(seconds), abandon_on_cancel=True)
            with anyio.move_on_after(seconds):
                if self._over is not None:
                    await self._over.wait()
            if session.active:
                return False
        self._letting_go.now()
        return True

    def in_progress(self) -> str:
        """What runs now, for people; empty if nothing does."""
        return self._server.handling.in_progress()

    @property
    def within_call(self) -> bool:
        """Whether this is a method of the entrypoint's own, or a task that one has started."""
        call = current.get()
        return call is not None and call.is_of(self._calls)
