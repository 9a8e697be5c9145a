"""A million small items by a stream, in a thread and in an event loop, against a pipe with msgspec by hand.

``python -m bench.items asyncio`` is capmarshal's server in an event loop, ``python -m bench.items thread`` the one of a
thread, and ``python -m bench.items pipe`` who writes by hand: told on its standard input how many, it writes that many.
"""

import contextlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import msgspec

import capmarshal as cm
from bench import loops
from bench.measuring import Goal, Report, Work, warm_up
from bench.processes import Cores, Process, await_end, places, run_on, running
from bench.server import served
from capmarshal import aio

TAKES, ROUNDS = "60 s", 9
_ITEMS, _QUICK_ITEMS = 1_000_000, 2_000
_TARGET = 1.5

_STREAM, _AWAITED, _PIPE = "capmarshal, a stream", "capmarshal, awaited on asyncio", "a pipe + msgspec by hand"
# Of the length that is written before each item.
_LENGTH = 4


class Numbers(cm.Interface):
    """What gives the items."""

    @cm.method
    def count(self, upto: int) -> Iterator[int]:
        """So many numbers."""


class AwaitedNumbers(cm.Interface):
    """The same where it is awaited."""

    count = cm.awaitable_stream(Numbers.count)


class _Numbers(Numbers):
    def count(self, upto: int) -> Iterator[int]:
        yield from range(upto)


class _AwaitedNumbers(AwaitedNumbers):
    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number


def _check(total: int, upto: int) -> None:
    if total != upto * (upto - 1) // 2:
        raise SystemExit("other items came")


def _seconds(take: Callable[[int], None], items: int) -> float:
    """Seconds for one item, after an untimed warm-up."""
    for upto in (warm_up(items), items):
        begin = time.perf_counter_ns()
        take(upto)
        taken = time.perf_counter_ns() - begin
    return taken / items / 1e9


def _take(numbers: Numbers, upto: int) -> None:
    total = 0
    for number in numbers.count(upto):
        total += number
    _check(total, upto)


async def _await(capability: cm.Capability, items: int) -> float:
    numbers = capability.cast(AwaitedNumbers)
    for upto in (warm_up(items), items):
        begin = time.perf_counter_ns()
        total = 0
        async for number in numbers.count(upto):
            total += number
        _check(total, upto)
        taken = time.perf_counter_ns() - begin
    return taken / items / 1e9


def _read(writer: Process, upto: int) -> None:
    print(upto, file=writer.stdin, flush=True)
    # The bytes beneath the text that it is elsewhere; it was started with a pipe, which typeshed does not know.
    read = writer.stdout.buffer.read  # type: ignore[union-attr]  # see above
    decode = msgspec.msgpack.Decoder(int).decode
    total = 0
    for _ in itertools.repeat(None, upto):
        total += decode(read(int.from_bytes(read(_LENGTH), "little")))
    _check(total, upto)


def _write() -> None:
    encode, out = msgspec.msgpack.Encoder().encode, sys.stdout.buffer
    for line in sys.stdin:
        for number in range(int(line)):
            item = encode(number)
            out.write(len(item).to_bytes(_LENGTH, "little"))
            out.write(item)
        out.flush()


@contextlib.contextmanager
def _started(cores: Cores, *arguments: str) -> Iterator[Process]:
    """A process of this module, on the server's core."""
    run_on(cores.server)
    with running("items", *arguments) as process:
        run_on(cores.client)
        yield process


def run(report: Report) -> Iterator[Work]:
    items = report.loops(_ITEMS, _QUICK_ITEMS)
    for cores in places():
        with contextlib.ExitStack() as stack:
            thread, loop = (
                cm.capability(stack.enter_context(served(cores, which, module="items")))
                for which in ("thread", "asyncio")
            )
            writer = stack.enter_context(_started(cores, "pipe"))
            timed: dict[str, Callable[[], float]] = {
                _STREAM: partial(_seconds, partial(_take, thread.cast(Numbers)), items),
                _AWAITED: partial(loops.run, "asyncio", _await, loop, items),
                _PIPE: partial(_seconds, partial(_read, writer), items),
            }
            yield Work(cores.named(), cores, timed, [Goal(_STREAM, _PIPE, _TARGET), Goal(_AWAITED, _PIPE, _TARGET)])


async def _serve() -> None:
    async with aio.Entrypoint("items") as entrypoint:
        cm.send_capability(sys.stdin, entrypoint.manage(_AwaitedNumbers()))
        await loops.await_end()


def _main(which: str) -> None:
    if which == "pipe":
        _write()
    elif which == "asyncio":
        loops.run(which, _serve)
    else:
        with cm.Entrypoint("items") as entrypoint:
            cm.send_capability(sys.stdin, entrypoint.manage(_Numbers()))
            await_end()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _main(sys.argv[1])
