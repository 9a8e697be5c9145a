"""What an application is asked beside calls, and awaits: what somebody gets who connects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._async_server.handlers import ends_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal._async_server.driver import Driver, Scope


class Asking:
    """All that is asked, each in a task of its own.

    Args:
        driver: of the event loop.
        failed: told of what was raised that is no :class:`Exception`.
    """

    def __init__(self, driver: Driver, failed: Callable[[BaseException], None]) -> None:
        self._driver = driver
        self._failed = failed
        self._scopes: set[Scope] = set()

    def ask(self, asked: Awaitable[object], then: Callable[[object, BaseException | None], None]) -> Scope:
        """Awaits something of the application's that is no call; what cancels it."""
        scope = self._driver.scope()

        async def ask() -> None:
            given, failure = None, None
            try:
                with scope:
                    given = await asked
            except BaseException as error:
                if ends_all(error):
                    raise
                failure = error
            finally:
                self._scopes.discard(scope)
            if not scope.cancel_called:
                then(given, failure)
            if failure is not None and not isinstance(failure, Exception):
                self._failed(failure)

        self._scopes.add(scope)
        self._driver.run_aside(ask, "for_client")
        return scope

    def end(self) -> None:
        """Tells all that is awaited to end."""
        for scope in tuple(self._scopes):
            scope.cancel()
