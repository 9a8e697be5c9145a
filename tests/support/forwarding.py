"""Processes in a row: a server of whatever can travel, and others that forward to it; ``python forwarding.py ROLE``.

Each process registers what it serves, and forwards to what was registered before it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator

import anyio

import capmarshal as cm
from capmarshal import aio
from patience import PATIENCE

PROGRAM = __file__


class Registry(cm.Interface):
    @cm.method
    def put(self, served: cm.Capability) -> None: ...

    @cm.method
    def last(self) -> cm.Capability: ...


class AsyncRegistry(cm.Interface):
    put = cm.awaitable(Registry.put)
    last = cm.awaitable(Registry.last)


class Wrong(Exception):
    def __init__(self, word: str, place: int) -> None:
        super().__init__(word, place)
        self.place = place


class Page(cm.Interface):
    @cm.method
    def title(self) -> str: ...


class PageServer(Page):
    def __init__(self, title: str) -> None:
        self._title = title

    def title(self) -> str:
        return self._title


class AsyncPage(cm.Interface):
    title = cm.awaitable(Page.title)


class Desk(cm.Interface):
    """Everything that can travel, there and back."""

    @cm.method
    def echo(self, value: bytes) -> bytes: ...

    @cm.method
    @cm.raises(Wrong)
    def fail(self, word: str, place: int) -> None: ...

    @cm.method
    def break_(self) -> None: ...

    @cm.method
    def copy(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]: ...

    @cm.method
    def array(self, data: cm.Dataspace) -> cm.Dataspace: ...

    @cm.method
    def read(self, buffer: cm.SharedBuffer) -> bytes: ...

    @cm.method
    def page(self, title: str) -> Page: ...

    @cm.method
    def title_of(self, page: Page) -> str: ...

    @cm.method
    def same(self, page: Page) -> Page: ...

    @cm.method
    def is_own(self, desk: cm.Capability) -> bool: ...

    @cm.method
    def lines(self, count: int) -> Iterator[str]: ...

    @cm.method
    def total(self, numbers: Iterator[int]) -> int: ...

    @cm.method
    def left(self) -> float: ...

    @cm.method
    def ring(self, signal: cm.Signal) -> None: ...

    @cm.method
    def made(self) -> int: ...

    @cm.method
    def caller(self) -> tuple[str, int]: ...

    @cm.method
    def hold(self, begun: cm.Signal, ended: cm.Signal) -> None: ...

    @cm.method
    def mark(self, number: int, file: cm.Descriptor) -> None: ...

    @cm.method
    def die(self) -> None: ...


class AsyncDesk(cm.Interface):
    echo = cm.awaitable(Desk.echo)
    fail = cm.awaitable(Desk.fail)
    left = cm.awaitable(Desk.left)
    hold = cm.awaitable(Desk.hold)
    die = cm.awaitable(Desk.die)
    lines = cm.awaitable_stream(Desk.lines)

    @cm.method
    async def title_of(self, page: AsyncPage) -> str: ...

    @cm.method
    async def total(self, numbers: AsyncIterator[int]) -> int: ...


class DeskServer(Desk):
    def __init__(self) -> None:
        self._made = 0

    def echo(self, value):
        return value

    def fail(self, word, place):
        raise Wrong(word, place)

    def break_(self):
        raise PermissionError("not this one")

    def copy(self, files):
        return files

    def array(self, data):
        return data

    def read(self, buffer):
        return bytes(buffer.view())

    def page(self, title):
        return PageServer(title)

    def title_of(self, page):
        return page.title()

    def same(self, page):
        return page

    def is_own(self, desk):
        return desk.local is self

    def lines(self, count):
        for number in range(count):
            self._made += 1
            yield str(number)

    def total(self, numbers):
        return sum(numbers)

    def left(self):
        return cm.remaining()

    def ring(self, signal):
        signal.send()

    def made(self):
        return self._made

    def caller(self):
        return cm.caller().label, cm.caller().pid

    def hold(self, begun, ended):
        begun.send()

    def mark(self, number, file):
        os.write(file.fileno(), number.to_bytes(4, "big"))

    def die(self):
        os._exit(3)


class AsyncDeskServer(AsyncDesk):
    async def echo(self, value):
        return value

    async def fail(self, word, place):
        raise Wrong(word, place)

    async def left(self):
        return cm.remaining()

    async def hold(self, begun, ended):
        begun.send()
        try:
            await anyio.sleep_forever()
        finally:
            ended.send()

    async def die(self):
        os._exit(3)

    async def lines(self, count):
        for number in range(count):
            yield str(number)

    async def title_of(self, page):
        return await page.title()

    async def total(self, numbers):
        return sum([number async for number in numbers])


class Passing(cm.Forwarder):
    """Passes all on as it is."""

    def __init__(self, to: cm.Capability) -> None:
        self.to = to

    def forward(self, call):
        return cm.forward(call, self.to)


class AsyncPassing(Passing):
    async def forward(self, call):
        return await aio.forward(call, self.to)


class Membrane(AsyncPassing):
    """Has each capability that goes through, either way, go through one of these; what comes back is the original."""

    def __init__(self, entrypoint, to: cm.Capability) -> None:
        super().__init__(to)
        self._entrypoint = entrypoint

    async def forward(self, call):
        table = [self._entered(thing) for thing in call.table]
        table = [self._entrypoint.grant(one) if isinstance(one, Membrane) else one for one in table]
        result = await aio.forward(cm.UntypedCall(call.method, call.payload, table), self.to)
        return cm.UntypedResult(result.payload, [self._entered(thing) for thing in result.table])

    def _entered(self, thing):
        if not isinstance(thing, cm.Capability):
            return thing
        return thing.local.to if isinstance(thing.local, Membrane) else Membrane(self._entrypoint, thing)


def serve(role: str) -> None:
    with contextlib.ExitStack() as stack:
        registry = cm.parent().cast(Registry)
        entrypoint = stack.enter_context(cm.Entrypoint(role))
        served = DeskServer() if role == "desk" else Passing(registry.last())
        registry.put(entrypoint.manage(served))
        cm.wait_gone(cm.parent())


async def serve_in_loop(role: str) -> None:
    registry = cm.parent().cast(AsyncRegistry)
    async with aio.Entrypoint(role) as entrypoint:
        if role == "desk":
            served = AsyncDeskServer()
        else:
            to = await registry.last()
            served = Membrane(entrypoint, to) if role == "membrane" else AsyncPassing(to)
        await registry.put(entrypoint.manage(served))
        del served
        await aio.wait_gone(cm.parent())


class RegistryServer(Registry):
    def __init__(self, put: cm.Signal) -> None:
        self.served: list[cm.Capability] = []
        self._put = put

    def put(self, served):
        self.served.append(served)
        self._put.send()

    def last(self):
        return self.served[-1]


@contextlib.contextmanager
def row(*processes: tuple[str, str]):
    """What the last of some processes serves, and these; of each its role, and the loop in which it serves, or none."""
    with contextlib.ExitStack() as stack:
        put = stack.enter_context(cm.SignalReceiver())
        registry = RegistryServer(put.signal)
        entrypoint = stack.enter_context(cm.Entrypoint("registry"))
        started = []
        for role, loop in processes:
            command = [sys.executable, "-W", "error", PROGRAM, role, loop]
            started.append(cm.spawn(command, parent=entrypoint.manage(registry)))
            stack.callback(started[-1].wait)
            put.wait(PATIENCE)
        stack.callback(entrypoint.close)
        yield registry.served[-1], started
        registry.served.clear()


if __name__ == "__main__":
    what, loop = sys.argv[1:]
    if loop == "blocking":
        serve(what)
    else:
        anyio.run(serve_in_loop, what, backend=loop)
