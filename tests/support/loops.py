"""Event loops that tests run in: asyncio, uvloop and trio; and what such tests serve, in both colours."""

from __future__ import annotations

import os
import threading
from functools import partial

import anyio
import pytest

import capmarshal as cm
from patience import PATIENCE
from telling import Telling

LOOPS = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
for _options in LOOPS.values():
    # The first one of a process makes what stays: libuv has a pipe of its own.
    anyio.run(anyio.sleep, 0, **_options)
each_loop = pytest.mark.parametrize("loop", LOOPS)


def run(loop, function, *arguments, seconds=PATIENCE):
    """What an async function returns in a loop of its own; fails after a generous while."""

    async def bounded():
        with anyio.fail_after(seconds):
            return await function(*arguments)

    try:
        return anyio.run(bounded, **LOOPS[loop])
    finally:
        # An idle one refers to what it has run last, until it has ended.
        for thread in threading.enumerate():
            if thread.name.startswith("AnyIO worker"):
                thread.join(1)


async def in_thread(function, *arguments):
    """What a function returns in another thread, which is left there where this is cancelled."""
    return await anyio.to_thread.run_sync(partial(function, *arguments), abandon_on_cancel=True)


class Work(cm.Interface):
    """What a blocking client sees."""

    @cm.method
    def double(self, value: int) -> int: ...

    @cm.method
    def blob(self, data: bytes) -> bytes: ...

    @cm.method
    def echo(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]: ...

    @cm.method
    def wait(self, how: str) -> str: ...

    @cm.method
    def hold(self, file: cm.Descriptor) -> int: ...

    @cm.method
    def take(self, what: cm.Capability) -> cm.Capability: ...


class AwaitedWork(cm.Interface):
    """What is served."""

    double = cm.awaitable(Work.double)
    blob = cm.awaitable(Work.blob)
    echo = cm.awaitable(Work.echo)
    wait = cm.awaitable(Work.wait)
    hold = cm.awaitable(Work.hold)
    take = cm.awaitable(Work.take)


class Worker(Telling, AwaitedWork):
    """Serves it.

    ``wait`` waits until it is told to go on, and says in ``seen`` how it ended: as ``how`` says, it swallows its
    cancellation, say.
    """

    def __init__(self):
        super().__init__()
        self.seen, self.running, self.most = [], 0, 0
        self.held = []
        self.go = False

    def saw(self, what):
        """Enters something in ``seen``."""
        self.seen.append(what)
        self.tell()

    async def began(self, count=1):
        """Returns once so many methods run."""
        await self.until(lambda: self.running >= count)

    async def double(self, value):
        return 2 * value

    async def blob(self, data):
        await anyio.lowlevel.checkpoint()
        return data

    async def echo(self, files):
        await anyio.lowlevel.checkpoint()
        return files

    async def take(self, what):
        return what

    async def wait(self, how):
        self.running += 1
        self.most = max(self.most, self.running)
        self.saw(("began", how))
        try:
            await self.until(lambda: self.go)
        except anyio.get_cancelled_exc_class():
            self.saw(("cancelled", how))
            if how != "swallow":
                raise
            with anyio.CancelScope(shield=True):
                await self.until(lambda: self.go)
            self.saw(("swallowed", how))
        finally:
            self.running -= 1
        self.saw(("ended", how))
        return how

    async def hold(self, file):
        self.held.append(cm.keep(file))
        await self.wait("hold")
        return os.fstat(file.fileno()).st_ino


def waits(capability, how="x"):
    """A client that waits; what it was answered, or whether it may have been."""
    try:
        return capability.cast(Work).wait(how)
    except cm.Disconnected as gone:
        return gone.ran
