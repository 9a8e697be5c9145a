"""Arguments that are streams of calls that are awaited: as those of calls that block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio

from capmarshal._client.passing import Passing
from capmarshal._typed.async_stream import AsyncStream, source_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal._capabilities.capability import Proxy
    from capmarshal._client.passing import Serve
    from capmarshal._typed.arguments import Given
    from capmarshal._typed.method import Method

# Seconds that a generator of which nothing is served may take to close: its call has failed, for its time was up or it
# was cancelled, perhaps.
_TO_CLOSE = 1.0


async def _end(streams: Passing, place: int) -> None:
    """Ends one stream of a call that has failed: what is not served yet is closed here, if it is a generator."""
    served = streams.ends.get(place)
    if served is not None:
        served()
        return
    iterator = streams.found[place]
    if streams.taken_by(place) or not hasattr(iterator, "aclose"):
        return
    # Whoever has written it raises what he likes, and the call has failed for something else.
    with contextlib.suppress(Exception), anyio.move_on_after(_TO_CLOSE, shield=True):
        await iterator.aclose()


def passing(
    invoke: Callable[[Proxy, Method, Given], Awaitable[Any]], serve: Serve
) -> Callable[[Proxy, Method, Given], Awaitable[Any]]:
    """Makes calls by ``invoke`` that have streams among their arguments.

    Args:
        invoke: makes a call of a proxy, of a method, with arguments; awaited.
        serve: serves what iterates.

    Returns:
        What makes such calls, and raises what it does where calls block; and what the call raises, of a stream that is
        the result of one which has not been made.
    """

    async def invoke_with_streams(proxy: Proxy, called: Method, arguments: Given) -> Any:
        streams = Passing(called, arguments, serve)
        # All that is in it is ended, also where one of these ends raises, or is cancelled.
        async with contextlib.AsyncExitStack() as failing:
            for place in streams.found:
                failing.push_async_callback(_end, streams, place)
            streams.take()
            streams.check()
            for place, iterator in streams.found.items():
                streams.passed(place, await source_of(iterator) if isinstance(iterator, AsyncStream) else None)
            result = await invoke(proxy, called, streams.arguments())
            failing.pop_all()
        return result

    return invoke_with_streams
