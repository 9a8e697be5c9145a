"""Waiting for calls of an event loop's entrypoint to end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.objects import Objects


class _Told:
    """Is told of each call that ends."""

    def __init__(self) -> None:
        self.event = anyio.Event()

    def release(self) -> None:
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
