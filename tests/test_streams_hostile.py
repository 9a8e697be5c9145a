"""Streams whose client, server or generator does not behave, and streams that are taken away (`test_streams.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

import by_hand
import capmarshal as cm
import loops
from capmarshal import aio
from capmarshal._capabilities.capability import open_door_of
from counted import AwaitedCounted, Counted
from left_behind import open_numbers
from patience import PATIENCE, until
from telling import settled

pytestmark = pytest.mark.usefixtures("forgotten_log")

ENDLESS = 10**9


class Thing(cm.Interface):
    @cm.method
    def number(self) -> int: ...


class ThingServer(Thing):
    def __init__(self, number):
        self._number = number

    def number(self):
        return self._number


class Source(cm.Interface):
    @cm.method
    def count(self, upto: int) -> Iterator[int]: ...

    @cm.method
    def blobs(self, how_many: int, size: int) -> Iterator[tuple[int, bytes]]: ...

    @cm.method
    def files(self, how_many: int, each: int) -> Iterator[list[cm.Descriptor]]: ...

    @cm.method
    def kept(self, how_many: int) -> Iterator[cm.Descriptor]: ...

    @cm.method
    def things(self, how_many: int) -> Iterator[Thing]: ...

    @cm.method
    def anything(self, how: str) -> Iterator[int]: ...

    @cm.method
    def written(self, file: io.BufferedWriter, keep: bool) -> Iterator[int]: ...


class SourceServer(Counted, Source):
    def __init__(self):
        super().__init__()
        self.mine = []
        self.act = lambda: None

    def blobs(self, how_many, size):
        for number in range(how_many):
            yield number, bytes(size)

    def files(self, how_many, each):
        try:
            for _ in range(how_many):
                yield [cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC)) for _ in range(each)]
        finally:
            self.closed += 1

    def kept(self, how_many):
        for _ in range(how_many):
            self.mine.append(cm.keep(cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC))))
            yield self.mine[-1]

    def things(self, how_many):
        for number in range(how_many):
            yield ThingServer(number)

    def anything(self, how):
        try:
            yield 1
            yield 2
            if how == "wrong":
                yield "no number"
            elif how == "unsendable":
                yield object()
            elif how == "too large":
                yield 1 << 70
            self.act()
            yield from range(3, ENDLESS if how == "goes on" else 4)
        finally:
            self.closed += 1

    def written(self, file, keep):
        if keep:
            self.mine.append(cm.keep(file))
        yield file.write(b"written")


@pytest.fixture
def source():
    """A proxy, the object behind it, and their entrypoint."""
    with cm.Entrypoint("source", max_descriptors=300, max_bytes=1 << 20) as entrypoint:
        target = SourceServer()
        yield entrypoint.manage(target).cast(Source), target, entrypoint


def in_threads(count, function):
    """What a function returns in each of some threads."""
    threads = [by_hand.Concurrent(function) for _ in range(count)]
    return [thread.outcome() for thread in threads]


# Who takes.


def test_a_client_that_stands_still(source, fork):
    """It has its stream as long as it is there, and others have theirs."""
    proxy, target, _ = source

    def take_some():
        stream = proxy.count(ENDLESS)
        next(stream)
        os.kill(os.getpid(), signal.SIGSTOP)

    child = fork(take_some)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    made = target.made
    assert made <= 64
    assert list(proxy.count(100)) == list(range(100))
    assert (target.made, target.closed) == (made + 100, 1)
    child.kill()
    until(lambda: target.closed == 2)


def test_many_take_from_one_stream_at_once(source, fork):
    """A stream is a capability like any other: who has it takes items, each of which goes to one, in some order."""
    proxy, _, _ = source
    pull = proxy.count(20_000)._source

    def take():
        taken, ended = [], False
        while not ended:
            items, ended = pull.next(7)
            taken += items
        return taken

    children = [fork(lambda: in_threads(2, take)) for _ in range(2)]
    taken = [number for child in children for numbers in child.result() for number in numbers]
    taken += take()
    assert sorted(taken) == list(range(20_000))


def test_a_stream_that_was_passed_on(source):
    """Its holder may pull, and nothing else; and has it after whoever began it has let go."""
    proxy, target, _ = source
    stream = proxy.count(100)
    assert next(stream) == 0
    pull = cm.capability(stream._source)
    stream.close()
    del stream
    gc.collect()
    assert target.closed == 0

    class Pull(cm.Interface):
        @cm.method
        def next(self, at_most: int) -> tuple[list[int], bool]: ...

        @cm.method
        def end(self) -> None: ...

    assert pull.cast(Pull).next(5) == ([16, 17, 18, 19, 20], False)
    with pytest.raises(cm.UnknownMethod):
        pull.cast(Pull).end()
    with pytest.raises(cm.UnknownMethod):
        pull.cast(Source).count(3)


def test_a_client_that_shuts_the_door_of_its_stream(source):
    """It has shut out itself, and nobody else: what it holds a channel to it goes on, and ends with that."""
    proxy, target, _ = source
    stream = proxy.count(ENDLESS)
    assert next(stream) == 0
    with socket.socket(fileno=os.dup(open_door_of(cm.capability(stream._source)).number)) as door:
        door.shutdown(socket.SHUT_RDWR)
    assert list(proxy.count(3)) == [0, 1, 2]
    stream.close()
    del stream
    gc.collect()
    until(lambda: target.closed == 2)


def test_streams_that_are_begun_and_kept_meet_the_bound_of_grants(fork):
    """And those that are dropped do not, though the server notices some calls later: so the bound is no small one."""
    with cm.Entrypoint("source", limits=cm.Limits(grants=200)) as entrypoint:
        target = SourceServer()
        proxy = entrypoint.manage(target).cast(Source)

        def begin():
            for _ in range(200):
                next(proxy.count(ENDLESS))
            kept = []
            with contextlib.suppress(cm.TooLarge):
                while len(kept) <= 200:
                    kept.append(proxy.count(ENDLESS))
            return len(kept)

        assert 1 <= fork(begin).result() <= 200
        assert list(proxy.count(3)) == [0, 1, 2]
        until(lambda: target.closed == 201)


def test_threads_that_take_from_one_iterator(source):
    """None is lost, and none comes twice."""
    proxy, _, _ = source
    stream = proxy.count(20_000)
    taken = in_threads(4, lambda: list(stream))
    assert sorted(number for numbers in taken for number in numbers) == list(range(20_000))


# Who gives.


class Lies(cm.Interface):
    """As `Source`, but that what is pulled from is any object."""

    @cm.method
    def count(self, upto: int) -> Pulled: ...


class Pulled(cm.Interface):
    @cm.method
    def next(self, at_most: int) -> tuple[list[Any], bool]: ...


class Liar(Lies, Pulled):
    def __init__(self, give):
        self._give = give

    def count(self, upto):
        return Liar(self._give)

    def next(self, at_most):
        return self._give(at_most)


@pytest.mark.parametrize(
    ("give", "error"),
    [
        (lambda at_most: ([1] * (at_most + 1), False), cm.ProtocolError),
        (lambda at_most: ([1] * (at_most + 1), True), cm.ProtocolError),
        (lambda at_most: ([], False), cm.ProtocolError),
        (lambda at_most: (["x"], False), cm.ArgumentError),
    ],
    ids=["too many", "too many at the end", "none, for ever", "others"],
)
def test_a_server_that_sends_no_stream(give, error):
    """Its client is told, and does not go on."""
    with cm.Entrypoint("source") as entrypoint:
        stream = entrypoint.manage(Liar(give)).cast(Source).count(5)
        with pytest.raises(error):
            next(stream)
        with pytest.raises(cm.Closed, match="ended before its items had"):
            next(stream)


def test_a_server_that_says_that_there_are_no_more(request):
    """It is not asked again."""
    asked = []
    with cm.Entrypoint("source") as entrypoint:
        stream = entrypoint.manage(Liar(lambda _: (asked.append(1) or [1, 2], True))).cast(Source).count(5)
        assert list(stream) == [1, 2]
        assert list(stream) == []
    assert asked == [1]


# How much comes at once.


@pytest.mark.parametrize(("how_many", "each"), [(40, 100), (5, 300), (1000, 1)])
def test_a_batch_has_no_more_descriptors_than_an_answer_may_have(source, how_many, each):
    proxy, _, _ = source
    count = 0
    for files in proxy.files(how_many, each):
        assert len(files) == each
        count += 1
        for file in files:
            file.close()
    assert count == how_many


def test_an_item_that_is_more_than_an_answer_may_be(source):
    """Those before it have come."""
    proxy, target, _ = source
    stream = proxy.files(5, 301)
    with pytest.raises(cm.TooLarge, match="max_descriptors"):
        next(stream)
    del stream
    gc.collect()
    until(lambda: target.closed == 1)


@pytest.mark.parametrize("size", [100, 10_000, 300_000, 1_000_000])
def test_a_batch_has_no_more_bytes_than_an_answer_may_have(source, size):
    proxy, _, _ = source
    how_many = 3_000_000 // size
    assert [(number, len(blob)) for number, blob in proxy.blobs(how_many, size)] == [
        (number, size) for number in range(how_many)
    ]


def test_objects_are_given_a_few_at_a_time(fork):
    """Each is a door of the server's, of which one process may have so many."""
    with cm.Entrypoint("source", limits=cm.Limits(grants=200)) as entrypoint:
        proxy = entrypoint.manage(SourceServer()).cast(Source)
        assert fork(lambda: [thing.number() for thing in proxy.things(300)]).result() == list(range(300))


def test_what_is_kept_of_an_item_that_comes_later(source):
    """An item that does not fit into one answer is kept in the call that sends it."""
    proxy, target, _ = source
    for file in proxy.kept(600):
        file.close()
    numbers = [file.fileno() for file in target.mine]
    assert len({os.fstat(number).st_ino for number in numbers}) == 600
    for file in target.mine:
        file.close()


def test_what_came_with_the_call_is_written_or_kept(source):
    """As it is with a call that is no stream's."""
    proxy, target, _ = source
    for keep in (False, True):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as writer:
            assert list(proxy.written(writer, keep)) == [7]
            if keep:
                target.mine.pop().close()
            writer.close()
            assert reader.read() == b"written"


# What a generator does.


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, StopIteration, MemoryError]
)
def test_whatever_a_generator_raises(source, kind):
    """Ends its stream, behind the items before it, and nothing else."""
    proxy, target, _ = source

    def act():
        raise kind

    target.act = act
    stream = proxy.anything("raises")
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(cm.RemoteError):
        next(stream)
    with pytest.raises(cm.Closed, match="ended before its items had"):
        next(stream)
    assert target.closed == 1
    assert list(proxy.count(2)) == [0, 1]


@pytest.mark.parametrize("how", ["unsendable", "too large"])
def test_an_item_that_cannot_be_sent(source, how):
    """Those before it come, and then what is wrong with it."""
    proxy, target, _ = source
    stream = proxy.anything(how)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(cm.RemoteError, match="ArgumentError"):
        next(stream)
    del stream
    gc.collect()
    until(lambda: target.closed == 1)


def test_a_generator_that_does_not_want_to_end(caplog):
    """It goes on to yield: that is in the log, and ends nothing else."""

    class Stubborn(SourceServer):
        def count(self, upto):
            with contextlib.suppress(GeneratorExit):
                while True:
                    yield 1
            yield 2

    with cm.Entrypoint("source") as entrypoint:
        proxy = entrypoint.manage(Stubborn()).cast(Source)
        stream = proxy.count(1)
        assert next(stream) == 1
        del stream
        gc.collect()
        until(lambda: "generator ignored GeneratorExit" in caplog.text)
        assert next(proxy.blobs(1, 1)) == (0, b"\0")
        caplog.clear()


def logged_ends(caplog):
    """What the log says of generators that raise when they are closed; it is cleared, as it knows their frames."""
    messages = [record.getMessage() for record in caplog.records if record.exc_info]
    caplog.clear()
    return messages


NOT_CLOSED = "source: Source.count: closing its stream, which nobody takes items of any more, raised"


@pytest.mark.parametrize("how", ["dropped", "revoked", "as service ends"])
def test_a_generator_that_raises_when_it_is_closed(how, caplog):
    """The log says whose it is."""

    class Untidy(SourceServer):
        def count(self, upto):
            try:
                yield from range(upto)
            finally:
                raise ValueError("not tidied up")

    target = Untidy()
    with cm.Entrypoint("source") as entrypoint:
        granted = entrypoint.grant(target)
        stream = granted.cast(Source).count(ENDLESS)
        assert next(stream) == 0
        if how == "dropped":
            del stream
            gc.collect()
        elif how == "revoked":
            entrypoint.revoke(granted)
        if how != "as service ends":
            until(lambda: caplog.records)
    assert logged_ends(caplog) == [NOT_CLOSED]


def test_a_generator_that_takes_from_its_own_stream(source):
    """It is told; and it goes on."""
    proxy, target, _ = source
    stream = proxy.anything("itself")
    told, pulls = [], [stream._source]

    def act():
        try:
            pulls[0].next(1)
        except cm.RemoteError as error:
            told.append(str(error))

    target.act = act
    assert list(stream) == [1, 2, 3]
    assert "what makes the items of a stream takes some of that stream" in told[0]
    pulls.clear()


def test_a_generator_that_calls_its_own_entrypoint(source):
    proxy, target, _ = source
    sums = []
    target.act = lambda: sums.append(sum(proxy.count(1000)))
    assert list(proxy.anything("calls")) == [1, 2, 3]
    assert sums == [499_500]
    del target.act


def taken_until(error, stream, match="."):
    """The items that come before an error."""
    taken = []
    with pytest.raises(error, match=match):  # noqa: PT012 - the loop is what raises
        for item in stream:
            taken.append(item)  # noqa: PERF402
    return taken


def test_an_entrypoint_that_is_closed_from_within_a_generator():
    """The items that it has made come, or not, and no more; it is closed."""
    entrypoint = cm.Entrypoint("source")
    with entrypoint:
        target = SourceServer()
        stream = entrypoint.manage(target).cast(Source).anything("goes on")
        target.act = entrypoint.close
        taken = taken_until(cm.Disconnected, stream)
        assert taken == list(range(1, len(taken) + 1))
    until(lambda: target.closed == 1)
    del target.act


# What is taken away.


@pytest.mark.parametrize("how", ["revoke", "dissolve"])
def test_the_streams_of_a_grant_end_with_it(source, how, fork):
    """Those that were begun through it, whoever has them, and no others."""
    proxy, target, entrypoint = source
    granted = entrypoint.grant(target, label="bad")
    through = granted.cast(Source)
    mine, others = through.count(ENDLESS), proxy.count(100)
    assert (next(mine), next(others)) == (0, 0)
    if how == "revoke":
        entrypoint.revoke(granted, "misbehaved")
    else:
        entrypoint.dissolve(target)
    until(lambda: target.closed == 1)
    with pytest.raises(cm.Revoked, match="misbehaved" if how == "revoke" else "dissolved"):
        list(mine)
    with pytest.raises(cm.Closed, match="ended before its items had"):
        next(mine)
    assert list(others) == list(range(1, 100))


def test_a_stream_that_a_method_begins_by_a_grant(source, caplog):
    """In the serving thread: it ends with the grant, as one that another process has begun."""
    _, target, entrypoint = source
    granted = entrypoint.grant(target)

    class Beginner(Thing):
        def number(self):
            if not target.mine:
                target.mine.append(granted.cast(Source).count(ENDLESS))
            return next(target.mine[0])

    beginner = entrypoint.manage(Beginner()).cast(Thing)
    assert [beginner.number() for _ in range(3)] == [0, 1, 2]
    entrypoint.revoke(granted, "misbehaved")
    until(lambda: target.closed == 1)
    # A traceback in the log refers to what the method has.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    with pytest.raises(cm.RemoteError, match=r"Revoked: .*misbehaved"):
        sum(beginner.number() for _ in range(1000))
    target.mine.clear()


def test_a_grant_that_is_revoked_from_within_its_stream(source):
    """What was made comes, and then that it is revoked."""
    _, target, entrypoint = source
    granted = entrypoint.grant(target)
    target.act = lambda: entrypoint.revoke(granted, "enough")
    assert taken_until(cm.Revoked, granted.cast(Source).anything("goes on"), "enough") == list(range(1, 17))
    until(lambda: target.closed == 1)
    del target.act


# In an event loop.


class AsyncSource(cm.Interface):
    count = cm.awaitable_stream(Source.count)
    files = cm.awaitable_stream(Source.files)
    anything = cm.awaitable_stream(Source.anything)

    @cm.method
    def scopes(self, upto: int) -> AsyncIterator[int]: ...

    @cm.method
    def waits(self) -> AsyncIterator[int]: ...


class AsyncSourceServer(AwaitedCounted, AsyncSource):
    def __init__(self):
        super().__init__()
        self.act = lambda: None
        self.go_on = anyio.Event()

    async def files(self, how_many, each):
        try:
            for _ in range(how_many):
                yield [cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC)) for _ in range(each)]
        finally:
            self.closed += 1

    async def anything(self, how):
        try:
            yield 1
            yield 2
            self.act()
            yield 3
        finally:
            self.closed += 1

    async def scopes(self, upto):
        for number in range(upto):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.lowlevel.checkpoint)
                with anyio.move_on_after(PATIENCE):
                    yield number

    async def waits(self):
        try:
            yield 1
            await self.go_on.wait()
            yield 2
        finally:
            self.closed += 1


@contextlib.asynccontextmanager
async def served(**options):
    async with aio.Entrypoint("source", **options) as entrypoint:
        target = AsyncSourceServer()
        yield entrypoint.manage(target).cast(AsyncSource), target, entrypoint


@loops.each_loop
def test_awaited_many_at_once(loop):
    """Each call has its answer, also where several wait for the same item."""

    async def main():
        async with served() as (proxy, target, _):
            stream = proxy.waits()
            assert await anext(stream) == 1
            pull = stream._source
            answers = []

            async def take():
                answers.append(await pull.next(1))

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(take)
                    await anyio.wait_all_tasks_blocked()
                    target.go_on.set()
            assert sorted(answers) == [([], True)] * 4 + [([2], True)] or ([2], False) in answers

    loops.run(loop, main)


@loops.each_loop
def test_awaited_calls_that_are_cancelled_lose_no_item(loop):
    """Who gives a call up has no items of it: the next one has them."""

    async def main():
        async with served() as (proxy, target, _):
            stream = proxy.waits()
            assert await anext(stream) == 1
            pull = stream._source
            for _ in range(20):
                with anyio.move_on_after(0.002):
                    await pull.next(10)
            target.go_on.set()
            taken, ended = [], False
            while not ended:
                items, ended = await pull.next(10)
                taken += items
            assert taken == [2]

    loops.run(loop, main)


@loops.each_loop
def test_an_awaited_generator_that_raises_when_it_is_closed(loop, caplog):
    """The log says whose it is, as of one that blocks."""

    class Untidy(AsyncSourceServer):
        async def count(self, upto):
            try:
                for number in range(upto):
                    yield number
            finally:
                raise ValueError("not tidied up")

    async def main():
        async with aio.Entrypoint("source") as entrypoint:
            stream = entrypoint.manage(Untidy()).cast(AsyncSource).count(ENDLESS)
            assert await anext(stream) == 0
            await stream.aclose()
            await settled(lambda: caplog.records)
        assert logged_ends(caplog) == [NOT_CLOSED.replace("Source", "AsyncSource")]

    loops.run(loop, main)


@loops.each_loop
def test_awaited_from_two_tasks(loop):
    """The second is told; and that the first has closed it meanwhile ends it."""

    async def main():
        async with served() as (proxy, target, _):
            stream = proxy.waits()
            async with anyio.create_task_group() as group:
                assert await anext(stream) == 1

                async def take():
                    assert [number async for number in stream] == []

                group.start_soon(take)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(RuntimeError, match="another task waits for an item"):
                    await anext(stream)
                await stream.aclose()
                target.go_on.set()

    loops.run(loop, main)


@loops.each_loop
def test_awaited_scopes_within_a_generator(loop):
    """One task iterates, whoever calls: cancel scopes and task groups hold across items."""

    async def main():
        async with served() as (proxy, _, _):
            assert [number async for number in proxy.scopes(200)] == list(range(200))
            stream = proxy.scopes(1000)
            assert await anext(stream) == 0
            await stream.aclose()

    loops.run(loop, main)


@loops.each_loop
def test_awaited_batches_are_bounded(loop):
    """And files that nobody fetches are closed with the stream."""

    async def main():
        async with served(max_descriptors=300) as (proxy, target, _):
            async for files in proxy.files(20, 100):
                assert len(files) == 100
                for file in files:
                    file.close()
            before = len(open_numbers())
            stream = proxy.files(1000, 3)
            for file in await anext(stream):
                file.close()
            await stream.aclose()
            await settled(lambda: target.closed == 2 and len(open_numbers()) <= before)

    loops.run(loop, main)


@loops.each_loop
@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, MemoryError])
def test_whatever_an_async_generator_raises(loop, kind):
    async def main():
        async with served() as (proxy, target, _):

            def act():
                raise kind

            target.act = act
            stream = proxy.anything("raises")
            assert [await anext(stream), await anext(stream)] == [1, 2]
            with pytest.raises(cm.RemoteError):
                await anext(stream)
            assert [number async for number in proxy.count(2)] == [0, 1]

    loops.run(loop, main)


@loops.each_loop
def test_awaited_streams_of_a_grant_end_with_it(loop):
    """Also where somebody waits for an item."""

    async def main():
        async with served() as (_, target, entrypoint):
            granted = entrypoint.grant(target)
            through = granted.cast(AsyncSource)
            waiting, idle = through.waits(), through.count(ENDLESS)
            assert await anext(waiting) == 1
            assert await anext(idle) == 0

            async def wait():
                with pytest.raises(cm.Revoked):
                    await anext(waiting)

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                entrypoint.revoke(granted, "misbehaved")
            with pytest.raises(cm.Revoked):
                async for _ in idle:
                    pass
            await settled(lambda: target.closed == 2)

    loops.run(loop, main)


@loops.each_loop
def test_a_service_that_ends_while_somebody_waits_for_an_item(loop):
    async def main():
        async with served() as (proxy, target, entrypoint):
            stream = proxy.waits()
            assert await anext(stream) == 1

            async def wait():
                with pytest.raises(cm.Disconnected):
                    await anext(stream)

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                entrypoint.close()
        assert target.closed == 1

    loops.run(loop, main)


def test_memory_is_flat_over_many_items(fork):
    """At both sides: what was taken is not kept."""

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def take(proxy):
        stream = proxy.count(1_000_000)
        for _ in range(100_000):
            next(stream)
        before = resident()
        total = sum(1 for _ in stream)
        return total, resident() - before

    with cm.Entrypoint("source") as entrypoint:
        proxy = entrypoint.manage(SourceServer()).cast(Source)
        child = fork(lambda: take(proxy))
        before = resident()
        total, grown = child.result()
        assert total == 900_000
        assert grown < 4 << 20
        assert resident() - before < 8 << 20
