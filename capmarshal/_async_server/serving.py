"""Serving in an event loop: a task takes the server's turns, and awaits its epoll descriptor when there is nothing.

No method outlives the time of serving.  What is to end the service - Ctrl-C, a fault that would come again - is raised
where the service is awaited, not in a group of errors.
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

from capmarshal._async_server.asking import Asking, asked_by
from capmarshal._async_server.awaited_call import current
from capmarshal._async_server.driver import Driver
from capmarshal._async_server.handlers import AwaitingCalls, LoggedAwaitingCalls
from capmarshal._capabilities import homecoming
from capmarshal._kernel import call_log
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER
from capmarshal._kernel.weakly import weakly
from capmarshal._server.awaited_loop import AwaitedServer
from capmarshal._server.dispatch import Dispatcher
from capmarshal._server.escapes import BySignal, nothing
from capmarshal._server.service import Service
from capmarshal._server.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

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
# Seconds less than which nobody has waited for them.
_WAITED = 0.001
_STOPPED = (
    "is served in another event loop, which does not run: its calls, and its end, wait until that does; use it, and "
    "leave it, where it was entered"
)
# Seconds between two looks at another event loop.
_LOOK = 0.01


# What this event loop serves.
_services: lowlevel.RunVar[weakref.WeakSet[AwaitedService]] = lowlevel.RunVar("capmarshal.services")


def _asyncios() -> Any:
    """The event loop, if it is asyncio's that runs this task; None where it is trio's, which ends with its tasks."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return None
    return asyncio.get_running_loop()


def _here() -> weakref.WeakSet[AwaitedService]:
    try:
        return _services.get()
    except LookupError:
        _services.set(weakref.WeakSet())
        return _services.get()


class AwaitingDispatcher(Dispatcher):
    """As :class:`Dispatcher`, for an entrypoint whose methods are awaited."""

    def _make_calls(self, objects: Objects, journal: Journal) -> Calls:
        return (LoggedAwaitingCalls if call_log.wanted() else AwaitingCalls)(objects, journal, weakref.ref(self))

    @property
    def begun_by(self) -> str:
        """What has it served, for people."""
        return "enter it (async with), or await serve_forever()"

    def takes_no_other(self) -> bool:
        """Whether one call keeps its thread from running others: while it is awaited, it does not."""
        return False

    def never_while_awaited(self) -> str:
        """As :meth:`Dispatcher.never_while_awaited`: another event loop of this thread serves it."""
        assert isinstance(self.calls, AwaitingCalls)  # noqa: S101 - made here
        loop = self.calls.loop
        here = loop is not None and self.serves_this_thread() and not loop.is_running()
        return f"which {_STOPPED}" if here else ""

    def never_while_blocked(self, awaited: str) -> str:
        """As :meth:`Dispatcher.never_while_blocked`."""
        if not self.serves_this_thread():
            return ""
        return (
            "in the thread of the event loop that serves it: it would wait for itself; "
            f"await {awaited}, or do it in another thread: await anyio.to_thread.run_sync(...)"
        )

    def method_here(self) -> object | None:
        """The method that runs here, in its task or one that it has started; of whichever entrypoint."""
        return current.get()

    def call_inline(
        self,
        door: Door,  # noqa: ARG002 - it is not made
        badge: bytes,  # noqa: ARG002
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

    _instead = (
        ": async with does, so wait there for what is to end it, as await anyio.sleep_forever(); or have it served by "
        "serve_forever(), without async with"
    )

    _server: AwaitedServer
    _calls: AwaitingCalls
    _driver: Driver
    _asking: Asking | None = None

    def __init__(
        self, label: str, door: Door, objects: Objects, calls: Calls, server: Server, journal: Journal
    ) -> None:
        super().__init__(label, door, objects, calls, server, journal)
        assert isinstance(server, AwaitedServer)  # noqa: S101 - by construction
        assert isinstance(calls, AwaitingCalls)  # noqa: S101 - likewise
        calls.concurrency = server.concurrency
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
        # Not that of who has served before; who serves still, where this is refused, keeps his.
        before, self._loop = self._loop, None
        try:
            self._claim(session)
        except BaseException:
            self._loop = before
            session.lock.release()
            raise
        # Before its first turn: a blocking call that is made here would wait for that.
        self._calls.thread = threading.get_ident()
        self._over, self._patient = anyio.Event(), True
        self._loop = self._calls.loop = _asyncios()
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
            self._calls.driver = self._driver = self._make_driver()
            self._calls.escaped = weakly(self._escaped, None)
            self._asking = Asking(self._driver, weakly(self._failed, None))
            self._server.ask_by(self._asking.ask)
            # A task of its own, for its context: what is in force here is not of the calls that come.
            await self._driver.serve(self._serve, f"capmarshal {self._label}")
        finally:
            self._calls.forget_all()
            self.end(session)
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            # Its traceback has this frame.
            del failure

    @property
    def is_asyncios(self) -> bool:
        """Whether it is served in an event loop of asyncio's, if anywhere."""
        return self._loop is not None

    def _make_driver(self) -> Driver:
        if self._loop is None:
            return Driver(self._server, self._objects)
        # Where it is used, it is imported already.
        from capmarshal._async_server.asyncio_driver import AsyncioDriver

        return AsyncioDriver(self._server, self._objects)

    def _escaped(self, error: BaseException) -> None:
        """Ends the service for what a method has raised."""
        if self._server.number < 0:
            # In a forked child, whose event loop is its parent's.
            raise error
        self._failure = error
        self._driver.stop()

    def _failed(self, error: BaseException) -> None:
        if self._calls.ends_service(error):
            self._escaped(error)

    async def _serve(self) -> None:
        server = self._server
        _deadline.current.set(FOREVER)
        homecoming.here.set(None)
        try:
            server.begin()
            await self._driver.until(lambda: server.told_to_end, _AT_ONCE)
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

    async def _drain(self) -> None:
        """Has calls that run end, and their answers sent."""
        began, server = time.monotonic_ns(), self._server
        server.begin_drain()
        # One at a time: a channel whose call is answered has no other one read.
        await self._driver.until(lambda: server.drained(patient=self._patient), 1)
        if (running := self.in_progress()) and (waited := (time.monotonic_ns() - began) / 1e9) >= _WAITED:
            words = "%s: not ended in %.2g s, and told to end: who has called gets no answer"
            self._journal.error(None, "left", words, running, waited)

    async def _end_handlers(self) -> None:
        """Tells the methods that still run to end, and says in the log which of them do not; and all that is asked."""

        def unheard() -> None:
            words = "%s: told to end, and not ended yet: it is waited for"
            running = dict.fromkeys((self.in_progress(), *sorted(self._driver.aside())))
            self._journal.error(None, "swallowed", words, ", ".join(filter(None, running)))

        if self._asking is not None:
            self._asking.end()
        for producer in tuple(self._calls.producers):
            producer.end()
        await self._driver.end_methods(_PATIENCE, unheard)

    def tell_to_end(self, send_until: int) -> None:
        """Ends service when the calls that run are answered; waits for nothing."""
        self._begin_end(send_until)
        self._end_in_closed_loop()
        self._release_if_over(self._session)

    async def finish(self, deadline: int, send_until: int) -> bool:
        """Ends service as :meth:`close` does, and awaits that.

        Returns:
            False if calls still run at the deadline; service ends when they have.

        Raises:
            RuntimeError: it cannot, in an event loop that does not run.
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

        Raises:
            RuntimeError: as :meth:`finish`.
        """
        self._patient = False
        self._begin_end(_deadline.after(seconds))
        await self._wait(self._session, math.inf)

    def _end_in_closed_loop(self) -> None:
        """Ends serving in an event loop that is closed: nothing in it ever goes on, nor is thrown away."""
        session = self._session
        if session is not None and session.active and self._loop is not None and self._loop.is_closed():
            self._server.end()
            self._calls.forget_all()
            self.end(session)

    async def _wait(self, session: Session | None, seconds: float) -> bool:
        """Waits for the end of serving, and lets go then; whether it has come."""
        self._end_in_closed_loop()
        if session is not None and session.active:
            with anyio.move_on_after(seconds):
                if self.is_here:
                    assert self._over is not None  # noqa: S101 - it is served
                    await self._over.wait()
                else:
                    await _wait_elsewhere(session, self._loop, self._label)
            if session.active:
                return False
        self._letting_go.now()
        return True

    @property
    def is_here(self) -> bool:
        """Whether it is served in this event loop, if anywhere."""
        return self in _here()

    @property
    def label(self) -> str:
        """Of the entrypoint."""
        return self._label

    def in_progress(self) -> str:
        """What runs now, for people; empty if nothing does."""
        return self._server.in_progress()

    @property
    def within_call(self) -> bool:
        """Whether this is a method of the entrypoint's own, or a task that one has started; or what else it has run."""
        call, asked = current.get(), asked_by.get()
        return (call is not None and call.is_of(self._calls)) or (asked is not None and asked() is self._asking)


async def _wait_elsewhere(session: Session, loop: Any, label: str) -> None:
    """Waits for the end of serving in another event loop: what tells that one tells no other."""
    while session.active:
        if loop is not None and not loop.is_running():
            raise RuntimeError(f"the entrypoint {label!r} {_STOPPED}")
        await anyio.sleep(_LOOK)
