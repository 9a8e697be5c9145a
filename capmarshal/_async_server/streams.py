"""Streams in an event loop: a task iterates, a few items ahead, and calls take what it has.

One task for all of a stream: what iterates may hold cancel scopes, which belong to the task that has entered them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from capmarshal._async_server.driver import ends_all
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER
from capmarshal._server import ownership
from capmarshal._server.streams import BYTES, Streaming, no_stream, raise_out_of, taken_away
from capmarshal._typed.untaken import close_items

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from capmarshal._async_server.driver import Driver, Scope
    from capmarshal._server.caller import Caller
    from capmarshal._server.items import Item, Streamed
    from capmarshal._server.shares import Shares
    from capmarshal._server.streams import Run
    from capmarshal._typed.incoming import Owned

# Items that are made ahead of those that were wanted, unless they are as many bytes as go together before; and seconds
# for which more are waited for.
_AHEAD = 64
_SLOW = 0.001


class AwaitedProducer(Streaming):
    """Serves one stream.

    Args:
        declared: what it is declared as.
        result: what is iterated over.
        owned: of the arguments of the call that has begun it; taken, unless this raises.
        kept: what the method has kept of these.
        shares: what one answer may have.
        caller: of the method; None: it is of none.
        driver: says by what the event loop is driven; None: it does not serve yet.
        failed: says in the log that it has not ended well where nobody else is told.
        cut_off: has the call that runs end without an answer.
        waits: has it give its place among those that run to others.

    Raises:
        Failing: nothing can iterate over the result.
    """

    def __init__(
        self,
        declared: Streamed,
        result: Any,
        owned: Owned,
        kept: Sequence[object],
        shares: Shares,
        caller: Caller | None,
        driver: Callable[[], Driver | None],
        failed: Callable[..., None],
        cut_off: Callable[[], None],
        waits: Callable[[], None],
    ) -> None:
        if not hasattr(result, "__aiter__"):
            raise no_stream(result, "iterate over by async for")
        super().__init__(declared, owned, kept, shares, caller)
        self._iterator: AsyncIterator[Any] = aiter(result)
        self._driver = driver
        self._scope: Scope | None = None
        self._failed, self._cut_off, self._waits = failed, cut_off, waits
        # Whether it iterates, or has; is at its end; and was told to end.
        self._begun = self._over = self._told = False
        self._made: deque[Item] = deque()
        self._bytes = 0
        # What was kept of items that no call has sent yet, by the identity of each, where something was.
        self._kept: dict[int, list[object]] = {}
        # What is no data is sent before its maker goes on: see Batch.
        self._ahead = _AHEAD if declared.items_are_data else 1
        self._wanted = False
        # Whether a call waits that has given its place back.
        self._awaited = False
        # Set where there is something new for all who wait for items; and where there is room for more.
        self._news: anyio.Event | None = None
        self._room = anyio.Event()

    async def next(self, at_most: int) -> tuple[list[Any], bool]:
        """Gives so many of the next items at most, and whether these are the last.

        Raises:
            Failing: the stream was taken away; or an item is not what the interface says.
            BaseException: what the iteration, or its end, has raised, once the items before it are taken.
        """
        if not self._begun and not self._told:
            self._begin(self._serving())
        batch = self.batch(at_most)
        taken: list[Item] = []
        self._wanted = True
        self._room.set()
        try:
            await self._first()
            with anyio.move_on_after(_SLOW):
                while not batch.full and (self._made or not self._over):
                    if not self._made:
                        # Nobody else runs before this waits: room is told of here, and not item by item.
                        self._room.set()
                        await self._some()
                    if self._made and batch.takes(item := self._made[0]):
                        taken.append(item)
                        self._made.popleft()
                        self._bytes -= item[1]
            self._room.set()
        except BaseException:
            # Who was to have them has given up; somebody else may want them.
            self._made.extendleft(reversed(taken))
            self._bytes += sum(item[1] for item in taken)
            raise
        if not batch.items and not self._made:
            if self.revoked:
                raise taken_away()
            if self._told:
                # The service ends: its client hears that, and no answer.
                self._cut_off()
                await anyio.sleep_forever()
            if self.failure is not None:
                raise_out_of(self)
        if self._kept and (call := ownership.current.get()) is not None:
            # The one that sends them is not to close what was kept.
            for item in taken:
                call.kept += self._kept.pop(id(item), ())
        return batch.items, self._over and not self._told and not self._made and self.failure is None

    def _serving(self) -> Driver:
        """By what the event loop is driven that serves it."""
        driver = self._driver()
        assert driver is not None  # noqa: S101 - it is pulled from
        return driver

    def _begin(self, driver: Driver) -> None:
        self._scope = driver.scope()
        driver.run_aside(self._iterate, f"{self.where}, items")
        self._begun = True

    async def _first(self) -> None:
        """As :meth:`_some`, for who has no item yet: who waits for news needs no place, and one waits for each stream.

        Others may wait as well, who have their places.
        """
        if self._made or self._over or self._awaited:
            await self._some()
            return
        self._awaited = True
        try:
            self._waits()
            await self._some()
        finally:
            self._awaited = False

    async def _some(self) -> None:
        """Waits until there is an item, or the end of all."""
        while not self._made and not self._over:
            if self._news is None:
                self._news = anyio.Event()
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()

    async def _iterate(self) -> None:
        # That of the call that has begun it is not this one's, nor is what it keeps.
        _deadline.current.set(FOREVER)
        ownership.current.set(None)
        mine = self.run()
        assert self._scope is not None  # noqa: S101 - it has begun
        try:
            mine.begin()
            with self._scope:
                async with _closing(self._iterator):
                    if not self._told:
                        await self._make(mine)
                self.leave(mine)
                self.write_out()
        except BaseException as error:
            if ends_all(error, self._serving()):
                raise
            if self._told:
                self._failed(exc_info=error)
            else:
                self.failure = error
        finally:
            self.end_run(mine)
            self._at_end()

    async def _make(self, mine: Run) -> None:
        async for item in self._iterator:
            made = self.measures.measured(item)
            if mine.kept:
                self._kept[id(made)] = self.leave(mine)
            self._made.append(made)
            self._bytes += made[1]
            # It may be the last reference to much.
            del item, made
            self._wanted = False
            self._tell()
            while self._is_ahead():
                self._room = anyio.Event()
                await self._room.wait()

    def _is_ahead(self) -> bool:
        """Whether no more is to be made for now."""
        if self._ahead == 1:
            return bool(self._made) or not self._wanted
        return len(self._made) >= self._ahead or self._bytes >= BYTES

    def _at_end(self) -> None:
        self._over = True
        if self._told:
            (items, self._made), (kept, self._kept) = (self._made, deque()), (self._kept, {})
            close_items((item[0] for item in items), itertools.chain.from_iterable(kept.values()))
        self._tell()
        self.let_go()

    def end(self) -> None:
        """Tells the iteration to end, from any thread.  Does nothing the second time."""
        self._told = True
        self.failure = None
        driver = self._driver()
        if driver is None or not driver.run_in_loop(partial(self._end_in_loop, driver)):
            # Nothing goes on there.
            self._at_end()

    def _end_in_loop(self, driver: Driver) -> None:
        if not self._begun and hasattr(self._iterator, "aclose"):
            # Whoever has made it may have begun it: that is awaited.
            self._begin(driver)
        # What cleans up is not cut off by being told the same once more.
        if self._scope is not None and not driver.was_told_by_loop(self._scope):
            self._scope.cancel()
        if self._over or not self._begun:
            self._at_end()


def _closing(iterator: Any) -> contextlib.AbstractAsyncContextManager[object]:
    """Closes it at the end of the block, if it is a generator."""
    return contextlib.aclosing(iterator) if hasattr(iterator, "aclose") else contextlib.nullcontext()
