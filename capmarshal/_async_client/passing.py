"""Arguments that are streams of calls that are awaited: as those of calls that block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from capmarshal._client.passing import check, replaced, streams_in
from capmarshal._typed.async_stream import AsyncStream, source_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal._capabilities.capability import Proxy
    from capmarshal._client.passing import Serve
    from capmarshal._typed.arguments import Given
    from capmarshal._typed.method import Method


class _Passing:
    """The streams of one call.

    Args:
        called: the method.
        given: its arguments.
        serve: serves what iterates.
    """

    def __init__(self, called: Method, given: Given, serve: Serve) -> None:
        self._called, self._given, self._serve = called, given, serve
        # What is not served yet, and what ends what is.
        self._left = streams_in(called, given)
        self._ends: list[Callable[[], None]] = []

    async def passed(self) -> Given:
        """The arguments, with what each stream is pulled from in its place."""
        called, made = self._called, {}
        for place, iterator in self._left.items():
            check(called, place, iterator)
        for place, iterator in tuple(self._left.items()):
            source = await source_of(iterator) if isinstance(iterator, AsyncStream) else None
            if source is None:
                source, end = self._serve(called.streamed[place], iterator)
                self._ends.append(end)
            made[place] = source
            del self._left[place]
        return replaced(called, self._given, made)

    async def end(self) -> None:
        """Ends them, as the call has failed."""
        for end in self._ends:
            end()
        for iterator in self._left.values():
            # Whoever has written it raises what he likes, and the call has failed for something else.
            with contextlib.suppress(Exception):
                if hasattr(iterator, "aclose"):
                    await iterator.aclose()


def passing(
    invoke: Callable[[Proxy, Method, Given], Awaitable[Any]], serve: Serve
) -> Callable[[Proxy, Method, Given], Awaitable[Any]]:
    """Makes calls by ``invoke`` that have streams among their arguments.

    Args:
        invoke: makes a call of a proxy, of a method, with arguments; awaited.
        serve: serves what iterates.
    """

    async def invoke_with_streams(proxy: Proxy, called: Method, arguments: Given) -> Any:
        streams = _Passing(called, arguments, serve)
        try:
            return await invoke(proxy, called, await streams.passed())
        except BaseException:
            await streams.end()
            raise

    return invoke_with_streams
