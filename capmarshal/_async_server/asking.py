"""What an application is asked beside calls, and awaits: what somebody gets who connects."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from capmarshal._async_server.handlers import ends_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal._async_server.driver import Driver


class _Asked:
    """One thing that is awaited.

    Args:
        asking: that it is one of.
        what: is awaited.
        then: told how that has ended.
    """

    def __init__(
        self, asking: Asking, what: Awaitable[object], then: Callable[[object, BaseException | None], None]
    ) -> None:
        self._asking = asking
        self._what = what
        self._then = then
        self._scope = asking.driver.scope()

    def cancel(self) -> None:
        """Tells it to end: nobody is told of it any more."""
        # Its event loop may be closed.
        with contextlib.suppress(RuntimeError):
            self._scope.cancel()

    async def run(self) -> None:
        """Awaits it."""
        given, failure, scope = None, None, self._scope
        try:
            with scope:
                # Before its first step, whatever it does then.
                if not scope.cancel_called:
                    given = await self._what
        except BaseException as error:
            if ends_all(error, self._asking.driver):
                raise
            failure = error
        if not scope.cancel_called:
            self._then(given, failure)
        if failure is not None and not isinstance(failure, Exception):
            self._asking.failed(failure)

    def over(self) -> None:
        """It is awaited no more, or never was."""
        self._asking.all.discard(self)
        if isinstance(self._what, Coroutine):
            # One that was never begun says so when it goes.
            self._what.close()


class Asking:
    """All that is asked, each in a task of its own.

    Args:
        driver: of the event loop.
        failed: told of what was raised that is no :class:`Exception`.

    Attributes:
        driver: as given.
        failed: likewise.
        all: what is awaited.
    """

    def __init__(self, driver: Driver, failed: Callable[[BaseException], None]) -> None:
        self.driver = driver
        self.failed = failed
        self.all: set[_Asked] = set()

    def ask(self, what: Awaitable[object], then: Callable[[object, BaseException | None], None]) -> _Asked:
        """Awaits something of the application's that is no call; what cancels it."""
        asked = _Asked(self, what, then)
        self.all.add(asked)
        try:
            self.driver.run_aside(asked.run, "for_client", asked.over)
        except BaseException:
            asked.over()
            raise
        return asked

    def end(self) -> None:
        """Tells all that is awaited to end."""
        for asked in tuple(self.all):
            asked.cancel()
