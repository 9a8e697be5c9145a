"""Streams that are arguments of calls that are awaited, served by who makes these: an entrypoint for each.

In the event loop in which the call is made, by a task that is nobody's: so a stream may outlive the call, and the task
that has made it.  It ends with its event loop at the latest, which it does not keep from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from capmarshal._async_server import asyncio_driver as _asyncio_driver  # noqa: F401 - nothing is imported in a sandbox
from capmarshal._async_server.awaited_call import current, cut_off, waits
from capmarshal._async_server.handlers import AwaitingCalls
from capmarshal._async_server.serving import AwaitedService, AwaitingDispatcher
from capmarshal._async_server.streams import AwaitedProducer
from capmarshal._server import ownership
from capmarshal._server.awaited_loop import AwaitedServer
from capmarshal._server.passed_streams import PassedStream, serve_by
from capmarshal._server.streams import END_FAILED, class_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from capmarshal._async_server.driver import Driver
    from capmarshal._capabilities.capability import Capability
    from capmarshal._server.items import Streamed
    from capmarshal._server.session import Session
    from capmarshal._typed.incoming import Owned

# Calls that wait for items of one stream at a time.
_CONCURRENCY = 100


class _Passed(PassedStream[AwaitedService]):
    """One that a task serves."""

    _colour = "awaitable"

    def __init__(self, declared: Streamed) -> None:
        make_server = partial(AwaitedServer, concurrency=_CONCURRENCY)
        super().__init__(declared, AwaitingDispatcher, make_server, AwaitedService)

    def _producer_of(self, iterator: AsyncIterator[Any], owned: Owned) -> Any:
        declared, calls = self._declared, self._dispatcher.calls
        assert isinstance(calls, AwaitingCalls)  # noqa: S101 - by construction
        failed = partial(self._journal.error, None, "end", END_FAILED, declared.where)
        producer = class_for(declared, AwaitedProducer)(
            declared, iterator, owned, (), calls.served.shares, None, partial(_driver_of, calls), failed, cut_off, waits
        )
        calls.producers.add(producer)
        return producer

    def _start(self) -> None:
        """Has a task serve it that is nobody's."""
        service, name = self._made(), f"capmarshal {self.label}"
        session = service.claim()
        if service.is_asyncios:
            # No list keeps it, but what the event loop watches for it: one that is closed keeps nothing.
            task = asyncio.get_running_loop().create_task(self._serve(session), name=name)
            # Also of one that is cancelled before it has begun.
            task.add_done_callback(lambda _: self._over(session))
        else:
            import trio

            trio.lowlevel.spawn_system_task(self._serve_systems, session, name=name, context=contextvars.copy_context())

    async def _serve(self, session: Session) -> None:
        # It is no part of the method in which the call is made.
        current.set(None)
        ownership.current.set(None)
        try:
            await self._made().serve_session(session)
        except Exception as error:  # noqa: BLE001 - there is nobody to hand it to
            self._journal.critical(None, "ended", "serving it has ended", exc_info=error)
        finally:
            self._over(session)

    async def _serve_systems(self, session: Session) -> None:
        """As :meth:`_serve`, in trio: what such a task raises would end all that runs there."""
        try:
            await self._serve(session)
        except anyio.get_cancelled_exc_class():
            raise
        except KeyboardInterrupt:
            # For the main task.
            signal.raise_signal(signal.SIGINT)
        except SystemExit as error:
            self._journal.critical(None, "exit", "a signal's SystemExit has ended this only", exc_info=error)

    def _over(self, session: Session) -> None:
        self._made().end(session)
        self.end()

    def _warn_of_leak(self) -> None:
        """Says nothing: with its event loop it is thrown away, and asyncio tells whoever has closed that."""


def _driver_of(calls: AwaitingCalls) -> Driver | None:
    """By what the event loop is driven that serves a stream; None: none does yet."""
    return getattr(calls, "driver", None)


def serve(declared: Streamed, iterator: AsyncIterator[Any]) -> tuple[Capability, Callable[[], None]]:
    """Serves a stream in this event loop, while that runs, as :func:`serve_by`.

    Args:
        declared: what it is declared as.
        iterator: taken, also if this fails.

    Raises:
        TableFull: no room for its descriptors.
        RuntimeError: no event loop runs here.
    """
    return serve_by(_Passed(declared), iterator)
