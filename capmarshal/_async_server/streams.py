"""Streams in an event loop: a task iterates, a few items ahead, and calls take what it has.

One task for all of a stream: what iterates may hold cancel scopes, which belong to the task that has entered them.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from capmarshal._async_server.driver import ends_all
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER
from capmarshal._server import ownership
from capmarshal._server.streams import Batch, Streaming, no_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capmarshal._async_server.driver import Driver
    from capmarshal._typed.method import Method
    from capmarshal._typed.table import Owned

# Items that are made ahead of those that were wanted, and seconds for which more are waited for.
_AHEAD = 64
_SLOW = 0.001


class AwaitedProducer(Streaming):
    """Serves one stream.

    Args:
        method: that has begun it.
        result: of that: what is iterated over.
        owned: of its arguments; taken, unless this raises.
        driver: of the event loop.

    Raises:
        Failing: nothing can iterate over the result.
    """

    def __init__(self, method: Method, result: Any, owned: Owned, driver: Driver) -> None:
        if not hasattr(result, "__aiter__"):
            raise no_stream(result, "iterate over by async for")
        super().__init__(method, owned)
        self._iterator: AsyncIterator[Any] = aiter(result)
        self._driver = driver
        self._scope = driver.scope()
        self._begun = self._over = False
        self._failure: BaseException | None = None
        self._made: deque[Any] = deque()
        # Set where there is something new for who waits for items; and where there is room for more.
        self._news, self._room = anyio.Event(), anyio.Event()

    async def next(self, at_most: int) -> tuple[list[Any], bool]:
        """Gives so many of the next items at most, and whether these are the last."""
        if not self._begun:
            self._begun = True
            self._driver.run_aside(self._iterate, f"{self._where}, items")
        await self._some()
        batch = Batch(at_most)
        with anyio.move_on_after(_SLOW):
            while self._made or not self._over:
                await self._some()
                if self._made and not batch.add(self._made.popleft()):
                    break
                self._room.set()
        self._room.set()
        if self._failure is not None and not batch.items:
            failure, self._failure = self._failure, None
            raise failure
        return batch.items, self._over and not self._made and self._failure is None

    async def _some(self) -> None:
        """Waits until there is an item, or the end of all."""
        while not self._made and not self._over:
            self._news = anyio.Event()
            await self._news.wait()

    async def _iterate(self) -> None:
        # That of the call that has begun it is not this one's, nor is what it keeps.
        _deadline.current.set(FOREVER)
        ownership.current.set(None)
        try:
            with self._scope:
                async with _closing(self._iterator):
                    async for item in self._iterator:
                        self._made.append(item)
                        self._news.set()
                        while len(self._made) >= _AHEAD:
                            self._room = anyio.Event()
                            await self._room.wait()
        except BaseException as error:
            if ends_all(error, self._driver):
                raise
            self._failure = error
        finally:
            self._over = True
            self._news.set()
            self.let_go()

    def end(self) -> None:
        """Tells the iteration to end.  Does nothing the second time."""
        # Its event loop may be closed.
        with contextlib.suppress(RuntimeError):
            self._scope.cancel()
        if not self._begun:
            self._over = True
            self.let_go()


def _closing(iterator: Any) -> contextlib.AbstractAsyncContextManager[object]:
    """Closes it at the end of the block, if it is a generator."""
    return contextlib.aclosing(iterator) if hasattr(iterator, "aclose") else contextlib.nullcontext()
