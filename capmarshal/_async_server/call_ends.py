"""Waiting for calls of an event loop's entrypoint to end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio
from anyio import lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.objects import Objects


class _Told:
    """Is told of each call that ends, in whichever thread that is: an event is its event loop's alone."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        token: Any = lowlevel.current_token()
        # An event loop of asyncio's, or trio's token; anyio wraps it from 4.11 on.
        token = getattr(token, "native_token", token)
        self._soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon

    def release(self) -> None:
        self._soon(self._set)

    def _set(self) -> None:
        self.event.set()


async def wait_for_ends(objects: Objects, over: Callable[[], bool]) -> None:
    """Waits until enough calls have ended.

    Args:
        objects: whose calls they are.
        over: whether that is so.
    """
    told = _Told()
    objects.awaited.append(told)
    try:
        while not over():
            await told.event.wait()
            told.event = anyio.Event()
    finally:
        with contextlib.suppress(ValueError):
            objects.awaited.remove(told)
