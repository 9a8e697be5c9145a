"""Streams as arguments of calls that are awaited (`test_streams_passed.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
import uvloop

import by_hand
import capmarshal as cm
import loops
from capmarshal import aio
from capmarshal._capabilities.capability import capability_behind
from capmarshal._descriptors.process import process
from counted import ENDLESS, AwaitedLines
from left_behind import open_numbers
from patience import PATIENCE
from telling import rounds, settled


class Text(cm.Interface):
    @cm.method
    async def count(self, lines: AsyncIterator[str], most: int = ENDLESS) -> int: ...

    @cm.method
    def grep(self, lines: AsyncIterator[str], word: str) -> AsyncIterator[str]: ...

    @cm.method
    async def hold(self, lines: AsyncIterator[str], keep: bool) -> str: ...

    @cm.method
    async def keep(self, lines: AsyncIterator[str]) -> None: ...

    @cm.method
    async def take(self, how_many: int) -> list[str]: ...

    @cm.method
    async def fail(self, lines: AsyncIterator[str]) -> None: ...

    @cm.method
    async def drop(self) -> None: ...

    @cm.method
    async def wait(self, lines: AsyncIterator[str]) -> None: ...

    @cm.method
    def never(self) -> AsyncIterator[int]: ...

    @cm.method
    async def three(self, first: AsyncIterator[int], second: AsyncIterator[int], third: AsyncIterator[int]) -> None: ...

    @cm.method
    async def lists(
        self, first: AsyncIterator[int], *, second: AsyncIterator[int] | None = None
    ) -> list[list[int]]: ...


class TextServer(Text):
    def __init__(self):
        self.held, self.waits = [], None

    async def count(self, lines, most=ENDLESS):
        count = 0
        async for _ in lines:
            count += 1
            if count == most:
                break
        return count

    async def grep(self, lines, word):
        async for line in lines:
            if word in line:
                yield line

    async def hold(self, lines, keep):
        first = await anext(lines)
        self.held.append(cm.keep(lines) if keep else lines)
        return first

    async def keep(self, lines):
        self.held.append(cm.keep(lines))

    async def take(self, how_many):
        return [await anext(self.held[-1]) for _ in range(how_many)]

    async def fail(self, lines):
        self.held.append(cm.keep(lines))
        raise OSError("no")

    async def drop(self):
        self.held.clear()

    async def wait(self, lines):
        self.waits.set()
        await anyio.sleep_forever()

    async def never(self):
        yield 1

    async def three(self, first, second, third): ...

    async def lists(self, first, *, second=None):
        return [[item async for item in each] if each is not None else [] for each in (first, second)]


def streams_served():
    return [each for each in process.entrypoints if each._label.startswith("stream of ") and not each.released]


async def numbers(*given):
    for number in given:
        yield number


@contextlib.asynccontextmanager
async def served():
    async with aio.Entrypoint("text") as entrypoint:
        target = TextServer()
        target.waits = anyio.Event()
        yield entrypoint.manage(target).cast(Text), target, entrypoint
        target.held.clear()


@loops.each_loop
def test_all_items_come_whatever_their_number(loop):
    """None, one, and about as many as are fetched at first; by position, by name, and None where that will do."""

    async def main():
        async with served() as (proxy, _, _):
            for count in (0, 1, 15, 16, 17, 5000):
                lines = AwaitedLines()
                assert await proxy.count(lines(count)) == count
                assert [line async for line in proxy.grep(lines(count), "7")] == [
                    f"line {number}" for number in range(count) if "7" in str(number)
                ]
            assert await proxy.lists(numbers(1, 2), second=numbers(3)) == [[1, 2], [3]]
            assert await proxy.lists(first=numbers(1), second=None) == [[1], []]

    loops.run(loop, main)


@loops.each_loop
def test_who_takes_three_of_many(loop):
    """Also of a stream of a stream; each generator is closed when the call has ended, and all that served it goes."""

    async def main():
        lines = AwaitedLines()
        async with served() as (proxy, _, _):
            assert await proxy.count(lines(), 3) == 3
            await lines.end()
            assert await proxy.count((line.upper() async for line in proxy.grep(lines(), "1")), 3) == 3
            assert await proxy.count(proxy.grep(lines(), "1"), 3) == 3
            await lines.end(3)
            await settled(lambda: not streams_served())

    loops.run(loop, main)


@loops.each_loop
def test_what_is_kept_outlives_the_call_and_the_task(loop, caplog):
    """Until it is dropped; what is not kept is closed with the call."""

    async def main():
        lines = AwaitedLines()
        async with served() as (proxy, _, _):

            async def give(keep):
                assert await proxy.hold(lines(), keep) == "line 0"

            async with anyio.create_task_group() as group:
                group.start_soon(give, True)
            # The event loop alone keeps what serves it.
            gc.collect()
            assert await proxy.take(200) == [f"line {number}" for number in range(1, 201)]
            assert not lines.closed
            await proxy.drop()
            await lines.end()
            await give(keep=False)
            await lines.end(2)
            with pytest.raises(cm.RemoteError, match="the stream was closed with the call that it came with"):
                await proxy.take(1000)

    loops.run(loop, main)
    caplog.clear()


@loops.each_loop
def test_a_stream_that_is_ended_by_another_thread(loop):
    """As whatever ends its service may be: it is told in its event loop, begun or not."""

    async def main():
        if loop != "trio":
            # So it says what may not be done from another thread.
            asyncio.get_running_loop().set_debug(True)
        lines = AwaitedLines()
        async with served() as (proxy, _, _):
            await proxy.hold(lines(), True)
            begun = lines()
            assert await anext(begun) == "line 0"
            await proxy.keep(begun)
            for each in streams_served():
                (producer,) = each._calls.producers
                await loops.in_thread(producer.end)
            await lines.end(2)
            await proxy.drop()

    loops.run(loop, main)


@loops.each_loop
def test_each_costs_seven_descriptors_where_it_is_served_and_two_where_it_is_held(loop):
    """A hundred of them, both in this process, until they end; the first call makes what stays, beside its stream."""

    async def main():
        lines = AwaitedLines()
        async with served() as (proxy, _, _):
            await proxy.hold(lines(), True)
            before = len(open_numbers())
            for _ in range(100):
                await proxy.hold(lines(), True)
            assert len(open_numbers()) - before == (7 + 2) * 100
            assert len(streams_served()) == 101
            await proxy.drop()
            await lines.end(101)
            await settled(lambda: not streams_served())

    loops.run(loop, main)


@loops.each_loop
def test_a_stream_that_is_passed_on(loop):
    """As it came, itself; of which something was taken, what is left."""

    async def main():
        lines = AwaitedLines()
        async with served() as (proxy, _, _):
            stream = proxy.grep(lines(100), "line")
            assert await proxy.count(stream) == 100
            with pytest.raises(cm.Closed, match="the stream was passed on"):
                await anext(stream)
            with pytest.raises(cm.Closed, match="the stream was passed on"):
                await proxy.count(stream)
            stream = proxy.grep(lines(100), "line")
            assert await anext(stream) == "line 0"
            assert await proxy.count(stream) == 99
            await lines.end(2)

    loops.run(loop, main)


@loops.each_loop
@pytest.mark.parametrize("how", ["cancelled", "late", "raises", "stale", "gone", "closed", "argument"])
def test_a_call_that_fails_ends_its_streams(loop, how, caplog):
    """Whoever has them; also one that has begun before, of which nothing is taken."""

    async def main():
        lines = AwaitedLines()
        given = lines()
        assert await anext(given) == "line 0"
        async with served() as (proxy, target, entrypoint):
            if how == "stale":
                await entrypoint.dissolve(target)
            if how == "closed":
                capability_behind(proxy).close()
            if how == "gone":
                await entrypoint.aclose()
            if how == "cancelled":
                async with anyio.create_task_group() as group:
                    group.start_soon(proxy.wait, given)
                    await target.waits.wait()
                    group.cancel_scope.cancel()
            elif how == "late":
                with pytest.raises(cm.CallTimeout), cm.timeout(0.05):
                    await proxy.wait(given)
            elif how == "raises":
                with pytest.raises(cm.RemoteError, match="no"):
                    await proxy.fail(given)
            elif how == "argument":
                with pytest.raises(cm.ArgumentError, match="second`: a list where an async iterator is due"):
                    await proxy.lists(given, second=[1])
            else:
                with pytest.raises((cm.StaleCapability, cm.Disconnected, cm.Closed)):
                    await proxy.count(given)
            await lines.end()

    loops.run(loop, main)
    caplog.clear()
    gc.collect()


class Leaving:
    """Iterates, and ends the program as it is closed."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        return 1

    async def aclose(self):
        raise SystemExit(3)


@loops.each_loop
def test_one_end_that_raises_keeps_no_other_from_being_made(loop):
    """What it raises is not hidden, and knows what the call has failed for."""

    async def main():
        async with served() as (proxy, _, _):
            lines = AwaitedLines()
            for leaving_is_first in (True, False):
                given = lines()
                await anext(given)
                first, second = (Leaving(), given) if leaving_is_first else (given, Leaving())
                with pytest.raises(SystemExit) as raised:
                    await proxy.three(first, second, [1])
                assert isinstance(raised.value.__context__, cm.ArgumentError)
            assert lines.closed == 2
            del raised

    loops.run(loop, main)


@loops.each_loop
@pytest.mark.parametrize("for_ever", [True, False])
@pytest.mark.parametrize("how", ["argument", "late", "cancelled"])
def test_what_is_not_served_yet_is_given_time_to_close_and_no_more(loop, how, for_ever, monkeypatch):
    """By whoever has called, where the call fails before: in time, too late, or cancelled."""
    monkeypatch.setattr("capmarshal._async_client.passing._TO_CLOSE", 0.05 if for_ever else PATIENCE)

    async def main():
        cleaned, cut_off = [], []

        async def slow():
            try:
                yield 1
                yield 2
            finally:
                try:
                    await (anyio.sleep_forever() if for_ever else rounds())
                    cleaned.append(True)
                except anyio.get_cancelled_exc_class():
                    cut_off.append(True)
                    raise

        with by_hand.Impostor() as impostor:
            # Its stream is served elsewhere, by somebody who does not answer.
            proxy = impostor.capability.cast(Text)
            given = slow()
            await anext(given)
            if how == "argument":
                with pytest.raises(cm.ArgumentError):
                    await proxy.three(given, numbers(1), [1])
            elif how == "late":
                with pytest.raises(cm.CallTimeout), cm.timeout(0):
                    await proxy.three(proxy.never(), given, numbers(1))
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(proxy.three, proxy.never(), given, numbers(1))
                    await rounds()
                    group.cancel_scope.cancel()
            assert (cleaned, cut_off) == (([], [True]) if for_ever else ([True], []))

    loops.run(loop, main)


@loops.each_loop
def test_a_stream_whose_call_is_never_made(loop):
    """Nothing was awaited, and nothing taken."""

    async def main():
        lines = AwaitedLines()
        async with served() as (proxy, _, _):
            stream = proxy.grep(lines(), "1")
            await stream.aclose()
            assert not lines.made

    loops.run(loop, main)


@loops.each_loop
def test_what_is_no_async_iterator_is_refused_and_the_error_says_what_to_pass(loop):
    """Before anything is sent."""

    async def main():
        async with served() as (proxy, _, _):
            for value, words in (
                (["1"], "a list where an async iterator is due: an async def that yields the items makes one"),
                (iter("1"), "a str_.*iterator where an async iterator is due: an async def that yields"),
                (AwaitedLines().__call__, "a method where an async iterator is due: call it, for what it yields"),
                (None, r"None where .*: where there may be none, it is annotated AsyncIterator\[...\] \| None"),
            ):
                with pytest.raises(cm.ArgumentError, match=rf"Text.count, argument `lines`: {words}"):
                    await proxy.count(value)

    loops.run(loop, main)


@loops.each_loop
def test_one_iterator_for_two_parameters(loop):
    """Is refused, and closed."""

    async def main():
        lines = AwaitedLines()
        async with served() as (proxy, _, _):
            given = lines()
            await anext(given)
            with pytest.raises(cm.ArgumentError, match="lists, arguments `first` and `second`: the same iterator"):
                await proxy.lists(given, second=given)
            assert lines.closed == 1

    loops.run(loop, main)


@loops.each_loop
def test_an_iterator_that_another_call_has_taken(loop):
    """Is refused, and not closed: that call may go on."""

    async def main():
        lines = AwaitedLines()
        async with served() as (proxy, _, _):
            given = lines(50)
            assert await proxy.hold(given, True) == "line 0"
            for _ in range(2):
                with pytest.raises(
                    cm.ArgumentError, match=r"lines`: this iterator was taken by an earlier call of Text.hold"
                ):
                    await proxy.count(given)
            assert await proxy.take(49) == [f"line {number}" for number in range(1, 50)]
            await proxy.drop()

    loops.run(loop, main)


@loops.each_loop
def test_what_iterates_has_the_context_of_the_call(loop):
    """But for what is of the method that has made it, and its deadline."""
    variable = contextvars.ContextVar("variable", default=0)

    async def made(seen):
        seen.append(variable.get())
        yield "1"
        with pytest.raises(RuntimeError, match="for server methods"):
            cm.caller()

    async def main():
        async with served() as (proxy, _, _):
            variable.set(7)
            seen = []
            assert await proxy.count(made(seen)) == 1
            assert seen == [7]

    loops.run(loop, main)


class BlockingText(cm.Interface):
    @cm.method
    def hold(self, lines: Iterator[str], keep: bool) -> str: ...


class BlockingServer(BlockingText):
    def __init__(self):
        self.held = []

    def hold(self, lines, keep):
        self.held.append(cm.keep(lines))
        return next(lines)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_that_is_closed_without_cancelling_what_it_runs(new_loop, caplog):
    """Nothing goes on in it: what served its streams is thrown away with it, and whoever has kept these is told."""
    with cm.Entrypoint("text") as entrypoint:
        target = BlockingServer()
        capability = entrypoint.manage(target)

        async def main():
            for _ in range(20):
                assert await capability.cast(Text).hold(AwaitedLines()(), True) == "line 0"

        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        del loop, main
        gc.collect()
        assert not streams_served()
        for held in target.held:
            with pytest.raises(cm.Disconnected):
                list(held)
        target.held.clear()
    # Of asyncio, whose tasks they were.
    assert {record.name for record in caplog.records} == {"asyncio"}
    caplog.clear()


@loops.each_loop
def test_a_loop_that_ends_while_a_stream_is_held(loop):
    """By a server elsewhere: its generator is closed, nothing hangs, and whoever has kept it is told."""
    lines = AwaitedLines()
    with cm.Entrypoint("text") as entrypoint:
        target = BlockingServer()
        capability = entrypoint.manage(target)

        async def main():
            assert await capability.cast(Text).hold(lines(), True) == "line 0"
            assert not lines.closed

        loops.run(loop, main)
        assert lines.closed == 1
        with pytest.raises(cm.Disconnected):
            list(target.held.pop())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_a_loop_that_ends_cuts_off_no_cleaning_up_whichever_task_it_cancels_first(loop, order):
    """``asyncio.run()`` cancels all tasks at its end: what serves the stream, what waits for that, what iterates."""

    class BlockingText(cm.Interface):
        @cm.method
        def hold(self, lines: Iterator[str], keep: bool) -> str: ...

    class BlockingServer(BlockingText):
        def hold(self, lines, keep):
            self.held = cm.keep(lines)
            return next(lines)

    cleaned = []

    async def lines():
        try:
            while True:
                yield "line"
        finally:
            await anyio.sleep(0)
            cleaned.append(True)

    with cm.Entrypoint("text") as entrypoint:
        target = BlockingServer()
        capability = entrypoint.manage(target)

        async def main():
            assert await capability.cast(Text).hold(lines(), True) == "line"
            await rounds()
            tasks = sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=lambda task: repr(task.get_coro()))
            assert len(tasks) == len(order)
            for number in order:
                tasks[number].cancel()
            await asyncio.wait(tasks)
            assert cleaned

        loops.run(loop, main)
        del target.held


HEAD = """
import os, sys, gc
import anyio
import capmarshal as cm
from capmarshal import aio
from collections.abc import AsyncIterator, Iterator

class Text(cm.Interface):
    @cm.method
    async def hold(self, lines: AsyncIterator[str]) -> str: ...

class BlockingText(cm.Interface):
    @cm.method
    def hold(self, lines: Iterator[str]) -> str: ...

class Holder(BlockingText):
    def hold(self, lines):
        self.held = cm.keep(lines)
        return next(lines)

async def endless():
    try:
        while True:
            yield "line"
            await anyio.sleep(0)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
        print("closed")

def blocking():
    while True:
        yield "line"

entrypoint = cm.Entrypoint("text").__enter__()
holder = Holder()
capability = entrypoint.manage(holder)
"""

ENDS = {
    "the run ends": """
async def main():
    assert await capability.cast(Text).hold(endless()) == "line"
anyio.run(main, backend=sys.argv[1])
""",
    "before it is served": """
async def main():
    async with anyio.create_task_group() as group:
        group.start_soon(capability.cast(Text).hold, endless())
        group.cancel_scope.cancel()
anyio.run(main, backend=sys.argv[1])
print("closed")
""",
    "an error ends the run": """
async def main():
    assert await capability.cast(Text).hold(endless()) == "line"
    raise SystemExit(0)
anyio.run(main, backend=sys.argv[1])
""",
    "nobody has it any more as the run ends": """
async def main():
    assert await capability.cast(Text).hold(endless()) == "line"
    del holder.held
anyio.run(main, backend=sys.argv[1])
""",
    "the interpreter ends": """
assert capability.cast(BlockingText).hold(blocking()) == "line"
print("closed")
""",
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("how", ENDS)
def test_a_program_that_ends_while_a_stream_is_held(how, backend):
    """At once, without a word, and with the generator closed that an event loop ran."""
    command = [sys.executable, "-I", "-X", "dev", "-W", "error", "-c", HEAD + ENDS[how], backend]
    finished = subprocess.run(command, timeout=PATIENCE, capture_output=True, text=True, check=False)
    # asyncio's own word on a busy machine, under -X dev.
    said = [line for line in finished.stderr.splitlines() if not line.startswith("Executing ")]
    assert (finished.returncode, finished.stdout, said) == (0, "closed\n", [])


INTERRUPTED = """
import os, signal, sys
import anyio
import capmarshal as cm
from capmarshal import aio
from collections.abc import AsyncIterator

class Text(cm.Interface):
    @cm.method
    async def count(self, lines: AsyncIterator[str]) -> int: ...

class TextServer(Text):
    async def count(self, lines):
        return len([line async for line in lines])

async def lines():
    try:
        yield "line"
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()
    finally:
        print("closed", flush=True)

async def main():
    async with aio.Entrypoint("text") as entrypoint:
        await entrypoint.manage(TextServer()).cast(Text).count(lines())

"""


@loops.each_loop
def test_ctrl_c_in_what_iterates(loop):
    """Goes to who runs the loop, as itself: no exception leaves a task that is nobody's, which would be trio's end."""
    program = f"{INTERRUPTED}anyio.run(main, **{loops.LOOPS[loop]!r})"
    command = [sys.executable, "-I", "-c", program]
    finished = subprocess.run(command, timeout=PATIENCE, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (-signal.SIGINT, "closed\n"), finished.stderr
    assert finished.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert "Internal" not in finished.stderr
