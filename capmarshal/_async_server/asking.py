"""What an application is asked beside calls: what somebody gets who connects, and what it does when it is told.

It is told that a signal has come, and that nobody can reach an object any more.

Each question is a task of its own, as a method is, also where it is asked of a plain function: that would find itself
in no task, where asyncio takes turns.
"""

from __future__ import annotations

import contextlib
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

from capmarshal._async_server.driver import ends_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._async_server.driver import Driver


# Whose question it is that is answered here: in its task, and in those that it has started.
asked_by: ContextVar[weakref.ref[Asking] | None] = ContextVar("capmarshal.asked", default=None)


class _Asked:
    """One question.

    Args:
        asking: that it is one of.
        what: gives the answer, or what is to be awaited for it.
        then: told how that has ended.
    """

    def __init__(
        self, asking: Asking, what: Callable[[], object], then: Callable[[object, BaseException | None], None]
    ) -> None:
        self._asking = asking
        self._what = what
        self._then = then
        self._scope = asking.driver.scope()

    def cancel(self) -> None:
        """Tells it to end: nobody wants the answer any more."""
        # Its event loop may be closed.
        with contextlib.suppress(RuntimeError):
            self._scope.cancel()

    async def run(self) -> None:
        """Asks."""
        given, failure, scope = None, None, self._scope
        asked_by.set(weakref.ref(self._asking))
        try:
            with scope:
                # Nothing is begun then: a coroutine that never ran would be warned of.
                if not scope.cancel_called:
                    given = self._what()
                    if hasattr(given, "__await__"):
                        given = await given
        except BaseException as error:
            if ends_all(error, self._asking.driver):
                raise
            failure = error
        finally:
            self._asking.all.discard(self)
        if not scope.cancel_called:
            self._then(given, failure)
        if failure is not None and not isinstance(failure, Exception):
            self._asking.failed(failure)


class Asking:
    """All that is asked.

    Args:
        driver: of the event loop.
        failed: told of what was raised that is no :class:`Exception`.

    Attributes:
        driver: as given.
        failed: likewise.
        all: what is asked, and not answered.
    """

    def __init__(self, driver: Driver, failed: Callable[[BaseException], None]) -> None:
        self.driver = driver
        self.failed = failed
        self.all: set[_Asked] = set()

    def ask(
        self, what: Callable[[], object], then: Callable[[object, BaseException | None], None], name: str
    ) -> _Asked:
        """Asks something of the application's that is no call, in a task of that name; what cancels that."""
        asked = _Asked(self, what, then)
        self.all.add(asked)
        try:
            self.driver.run_aside(asked.run, name)
        except BaseException:
            self.all.discard(asked)
            raise
        return asked

    def end(self) -> None:
        """Tells all that is asked to end."""
        for asked in tuple(self.all):
            asked.cancel()
