"""How tasks of an event loop wait for what tests look at: they are told when to look again, and do not poll."""

from __future__ import annotations

import anyio

from patience import PATIENCE

# Rounds of an event loop in which whatever is due has been done, several times.
ROUNDS = 50


class Telling:
    """Tells tasks of one event loop that something has changed: whatever is set as its attribute, does."""

    def __init__(self):
        self._waiting = []

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        self.tell()

    def tell(self):
        """Has each task that waits look again."""
        for event in self._waiting:
            event.set()

    # As of a lock, which is how the entrypoint tells of the end of a call.
    release = tell

    async def until(self, condition, seconds=PATIENCE):
        """Returns once condition() is true; fails after a generous while."""
        with anyio.fail_after(seconds):
            while not condition():
                event = anyio.Event()
                self._waiting.append(event)
                try:
                    await event.wait()
                finally:
                    self._waiting.remove(event)


async def settled(condition, seconds=PATIENCE):
    """Returns once condition() is true, of which nobody tells: it is looked at over and over."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.001)


async def served_until(entrypoint, condition):
    """Returns once condition() is true, which the server's turns make so, or ends of calls: each of them tells."""
    service, telling = entrypoint._service, Telling()
    server, awaited = service._server, service._objects.awaited
    take_some = server.take_some

    def told(most):
        more = take_some(most)
        telling.tell()
        return more

    server.take_some = told
    awaited.append(telling)
    try:
        await telling.until(condition)
    finally:
        awaited.remove(telling)
        del server.take_some


async def rounds(count=ROUNDS):
    """Has the event loop go round so many times: what would come, has come."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()
