"""Event loops: which there are, how something runs in one, and how calls are timed there."""

import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio

from bench.measuring import warm_up

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
# By name: as anyio is told.
_LOOPS: dict[str, tuple[str, dict[str, bool]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


def unavailable() -> dict[str, str]:
    """By the name of each loop, why it cannot be used here; empty if it can."""
    return {loop: "" if importlib.util.find_spec(loop) else f"{loop} is not installed" for loop in _LOOPS}


def run(loop: str, main: Callable[[Unpack[Ts]], Awaitable[T]], *arguments: *Ts) -> T:
    """Runs this in a new loop of that name, and returns what it does."""
    backend, options = _LOOPS[loop]
    return anyio.run(main, *arguments, backend=backend, backend_options=options)


async def await_end() -> None:
    """As :func:`bench.processes.await_end`, where that would stop the loop."""
    await anyio.wait_readable(sys.stdin)


async def often(
    call: Callable[..., Awaitable[T]], arguments: tuple[object, ...], expected: T, times: int, in_flight: int = 1
) -> float:
    """Seconds for one call of so many, with so many in flight, after an untimed warm-up; each result is checked."""

    async def calls(count: int) -> None:
        for _ in range(count):
            if await call(*arguments) != expected:
                raise SystemExit("a wrong result came")

    for repeats in (warm_up(times), times):
        begin = time.perf_counter_ns()
        if in_flight == 1:
            await calls(repeats)
        else:
            async with anyio.create_task_group() as group:
                for number in range(in_flight):
                    group.start_soon(calls, len(range(number, repeats, in_flight)))
        taken = time.perf_counter_ns() - begin
    return taken / times / 1e9
