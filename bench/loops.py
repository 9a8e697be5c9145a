"""Event loops: which there are, how something runs in one, and how calls are timed there, and elsewhere."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar, TypeVarTuple, Unpack

import anyio

from bench.measuring import adding, checked, warm_up
from bench.measuring import often as blocking_often

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
# By name: as anyio is told.
_LOOPS: dict[str, tuple[str, dict[str, bool]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


def run(loop: str, main: Callable[[Unpack[Ts]], Awaitable[T]], *arguments: *Ts) -> T:
    """Runs this in a new loop of that name, and returns what it does."""
    backend, options = _LOOPS[loop]
    return anyio.run(main, *arguments, backend=backend, backend_options=options)


async def await_end() -> None:
    """As :func:`bench.processes.await_end`, where that would stop the loop."""
    await anyio.wait_readable(sys.stdin)


async def seconds(batch: Callable[[int], Awaitable[object]], times: int) -> float:
    """Seconds for one of so many, which are done at once, after an untimed warm-up."""
    for repeats in (warm_up(times), times):
        begin = time.perf_counter_ns()
        await batch(repeats)
        taken = time.perf_counter_ns() - begin
    return taken / times / 1e9


async def often(
    call: Callable[..., Awaitable[T]], arguments: tuple[object, ...], expected: T, times: int, in_flight: int = 1
) -> float:
    """Seconds for one call of so many, with so many in flight; each result is checked."""

    async def calls(count: int) -> None:
        for _ in range(count):
            if await call(*arguments) != expected:
                raise SystemExit("a wrong result came")

    async def together(count: int) -> None:
        async with anyio.create_task_group() as group:
            for number in range(in_flight):
                group.start_soon(calls, len(range(number, count, in_flight)))

    return await seconds(calls if in_flight == 1 else together, times)


class Client(NamedTuple):
    """Who calls, as somebody else than capmarshal has it."""

    add: Callable[[int, int], Any]
    inode: Callable[[int], Any] | None = None  # of a descriptor, which is borrowed
    runner: asyncio.Runner | None = None  # of the event loop in which these calls are awaited; None where they block

    def add_often(self, times: int, in_flight: int = 1) -> float:
        """Seconds for one call of ``add``, of those that are awaited with so many in flight; each result is checked."""
        if self.runner is not None:
            return self.runner.run(often(self.add, (1, 2), 3, times, in_flight))
        return blocking_often(adding(self.add), times)

    def pass_often(self, number: int, times: int) -> float:
        """Seconds for one call that hands the descriptor over, and answers its inode; of those that can."""
        if self.inode is None:
            raise NotImplementedError
        expected = os.fstat(number).st_ino
        if self.runner is not None:
            return self.runner.run(often(self.inode, (number,), expected, times))
        return blocking_often(checked(self.inode, (number,), expected), times)


def in_asyncio(connect: Callable[P, AsyncIterator[Client]]) -> Callable[P, contextlib.AbstractContextManager[Client]]:
    """Makes of a client that is connected, and called, in an event loop one for those who block."""

    @contextlib.contextmanager
    def connected(*arguments: P.args, **options: P.kwargs) -> Iterator[Client]:
        stack = contextlib.AsyncExitStack()
        with asyncio.Runner() as runner:
            entered = contextlib.asynccontextmanager(connect)(*arguments, **options)
            client = runner.run(stack.enter_async_context(entered))
            try:
                yield client._replace(runner=runner)
            finally:
                runner.run(stack.aclose())

    return connected
