"""A stream, as its receiver has it in an event loop: an iterator whose items are awaited."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from capmarshal._protocol.answer_bound import of_items
from capmarshal._typed import stream
from capmarshal._typed.stream import Fetched, thrown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

T = TypeVar("T")


class AsyncStream(AsyncGenerator[T, None]):
    """What iterates over a stream of another process: a generator to whoever has it, of which nothing is caught.

    Args:
        begin: makes the call that gives what it is pulled from; awaited when the first item is.
        source: a proxy of that, where there is none to be made.
    """

    def __init__(self, begin: Callable[[], Awaitable[Any]] | None, source: Any = None) -> None:
        self._begin = begin
        self._source = source
        self._fetched: Fetched[T] = Fetched()
        self._items = self._fetched.items
        self._fetching = self._ended = False

    async def __anext__(self) -> T:
        """The next item, which is fetched with some that come after it, if it has not been.

        Raises:
            StopAsyncIteration: there is none; what the server's iteration has raised was raised before.
            CallTimeout, Disconnected, Revoked, ProtocolError: it has not come, and the stream has ended.
            Closed: it has ended by an error before; or this process is a fork of the one that takes its items.
            RuntimeError: another task waits for one.
        """
        if self._fetched.process != os.getpid():
            self._fetched.check()
        while not self._items:
            await self._fetch()
        return self._items.popleft()

    async def _fetch(self) -> None:
        if self._fetching:
            raise RuntimeError("another task waits for an item of this stream: give each task a stream of its own")
        fetched = self._fetched
        self._fetching, before, handled = True, of_items.get(), sys.exc_info()[1]
        try:
            begin, self._begin = self._begin, None
            if begin is not None:
                source = await begin()
                # Unless it was closed meanwhile.
                self._source = None if self._ended else source
                del source
            fetched.raise_later()
            if self._source is None:
                fetched.check()
                raise StopAsyncIteration
            wanted = fetched.wanted()
            fetched.begin()
            of_items.set(fetched.bound)
            fetched.add(await self._source.next(wanted), wanted)
        except BaseException as error:
            if not fetched.keeps(error, handled):
                if not isinstance(error, StopAsyncIteration):
                    fetched.fail(error)
                self._end()
                raise
            # There is no more to be had of it.
            self._source = None
        finally:
            self._fetching = False
            del handled
            # Not in the context of whoever throws it away.
            if of_items.get() is fetched.bound:
                of_items.set(before)
        if self._ended:
            self._fetched.close()
        if fetched.ended:
            self._source = None

    def _end(self) -> None:
        self._ended = True
        self._begin = self._source = None
        self._fetched.close()

    async def asend(self, value: None, /) -> T:
        """As ``anext()``.

        Raises:
            TypeError: it is something.
        """
        if value is not None:
            raise TypeError("a stream is sent nothing: its items are made elsewhere")
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> T:
        """Ends the stream, and raises this: whoever makes the items is told no more than that."""
        self._end()
        try:
            raise thrown(typ, val, tb)
        finally:
            # It knows this frame, and by that the method's, whose things would be kept.
            del typ, val, tb

    async def aclose(self) -> None:
        """Ends the stream: the server's iteration is closed.  Does nothing the second time."""
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def __reduce__(self) -> str:
        # What copy.copy() asks, too: each of two would have some of the items.
        raise TypeError("a stream is neither copied nor pickled: what goes to another process is its items")


AnyStream: TypeAlias = "stream.Stream[Any] | AsyncStream[Any]"


async def source_of(awaited: AsyncStream[Any]) -> Any:
    """What a stream is pulled from: as of one whose items are not awaited.

    Its call is made, where it is the result of one that has not been.

    Args:
        awaited: the stream.

    Returns:
        A proxy; None where some of it was fetched, or is waited for, or it is closed.

    Raises:
        Closed: it cannot be taken from any more.
        Error: as its call raises it; the stream has ended.
    """
    fetched = awaited._fetched  # noqa: SLF001 - of this module
    fetched.check()
    begin, source = awaited._begin, awaited._source  # noqa: SLF001 - likewise
    if awaited._fetching or (begin is None and source is None) or not fetched.pass_on():  # noqa: SLF001 - likewise
        return None
    awaited._end()  # noqa: SLF001 - likewise
    return source if begin is None else await begin()


def end_with_call(ended: AnyStream) -> None:
    """Closes a stream with the call that it came with."""
    if isinstance(ended, AsyncStream):
        ended._end()  # noqa: SLF001 - of this module
        ended._fetched.end_with_call()  # noqa: SLF001 - likewise
    else:
        stream.end_with_call(ended)
