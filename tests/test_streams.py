"""Streams: iterators as results, pulled some items at a time, and closed when they are dropped; in both colours."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import io
import os
import pickle
import queue
import signal
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

import anyio
import msgspec
import pytest

import by_hand
import capmarshal as cm
import loops
import matrix
from capmarshal import aio
from capmarshal._capabilities.capability import badge_of, capability_behind
from capmarshal._typed.items_before import bring_items
from capmarshal._typed.stream import Fetched
from counted import AwaitedCounted, Counted
from patience import PATIENCE, until
from telling import settled


class Source(cm.Interface):
    @cm.method
    def count(self, upto: int) -> Iterator[int]: ...

    @cm.method
    def lines(self, file: io.BufferedReader) -> Iterator[bytes]: ...

    @cm.method
    @cm.raises(KeyError)
    def fails(self, after: int) -> Iterator[int]: ...

    @cm.method
    def files(self, how_many: int) -> Iterator[cm.Descriptor]: ...

    @cm.method
    def rows(self, how_many: int) -> Iterator[tuple[str, list[int]]]: ...

    @cm.method
    def listed(self) -> Iterator[int]: ...


class AsyncSource(cm.Interface):
    count = cm.awaitable_stream(Source.count)
    lines = cm.awaitable_stream(Source.lines)
    fails = cm.awaitable_stream(Source.fails)
    files = cm.awaitable_stream(Source.files)

    @cm.method
    async def plain(self) -> int: ...


class SourceServer(Counted, Source):
    def lines(self, file):
        yield from file

    def fails(self, after):
        yield from range(after)
        raise KeyError("no more")

    def files(self, how_many):
        for _ in range(how_many):
            yield cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC))

    def rows(self, how_many):
        return ((str(number), [number]) for number in range(how_many))

    def listed(self):
        return [1, 2, 3]


class AsyncSourceServer(AwaitedCounted, AsyncSource):
    async def lines(self, file):
        for line in file:
            yield line

    async def fails(self, after):
        for number in range(after):
            yield number
        raise KeyError("no more")

    async def files(self, how_many):
        for _ in range(how_many):
            yield cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC))

    async def plain(self):
        return 3


@pytest.fixture
def source():
    """A proxy, and the object behind it."""
    with cm.Entrypoint("source") as entrypoint:
        target = SourceServer()
        yield entrypoint.manage(target).cast(Source), target


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 5000])
def test_all_items_come_in_their_order(source, count):
    proxy, target = source
    assert list(proxy.count(count)) == list(range(count))
    assert (target.made, target.closed) == (count, 1)


def test_items_of_every_kind(source, tmp_path):
    """Also what is no generator, and what travels with descriptors."""
    proxy, _ = source
    assert list(proxy.rows(3)) == [("0", [0]), ("1", [1]), ("2", [2])]
    assert list(proxy.listed()) == [1, 2, 3]
    numbers = set()
    for file in proxy.files(300):
        with file:
            numbers.add(os.fstat(file.fileno()).st_ino)
    assert len(numbers) == 300


def test_what_came_with_the_call_is_the_streams(source, tmp_path):
    """A generator looks at its arguments when the first item is wanted; they are closed at its end."""
    proxy, _ = source
    path = tmp_path / "lines"
    path.write_bytes(b"line\n" * 3000)
    with path.open("rb") as file:
        assert list(proxy.lines(file)) == [b"line\n"] * 3000
        file.seek(0)
        begun = proxy.lines(file)
        assert next(begun) == b"line\n"
        begun.close()


def test_no_more_is_made_than_is_wanted(source):
    """Pulled: who does not take items has none made."""
    proxy, target = source
    stream = proxy.count(10**9)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert target.made <= 64
    stream.close()


@pytest.mark.parametrize("do", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_neither_copied_nor_pickled(source, do):
    """Of either colour: two would share one iteration, and each have some of its items."""
    proxy, _ = source
    awaited = capability_behind(proxy).cast(AsyncSource)
    for stream in (proxy.count(1), awaited.count(1)):
        with pytest.raises(TypeError, match="a stream is neither copied nor pickled"):
            do(stream)


@pytest.mark.parametrize("how", ["close", "drop", "block", "break"])
def test_a_stream_that_is_left_ends_at_its_server(source, how):
    """The generator is closed, and what is behind it goes on."""
    proxy, target = source
    stream = proxy.count(10**9)
    assert next(stream) == 0
    if how == "close":
        stream.close()
        assert list(stream) == []
    elif how == "block":
        with stream:
            assert next(stream) == 1
    elif how == "break":
        for _ in stream:
            break
    del stream
    gc.collect()
    until(lambda: target.closed == 1)
    assert list(proxy.count(2)) == [0, 1]


def test_a_client_that_is_killed(fork):
    """In the middle of a stream, as at its beginning."""
    target = SourceServer()
    with cm.Entrypoint("source") as entrypoint:
        proxy = entrypoint.manage(target).cast(Source)

        def take_some():
            stream = proxy.count(10**9)
            assert next(stream) == 0
            os.kill(os.getpid(), signal.SIGSTOP)

        child = fork(take_some)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert target.closed == 0
        child.kill()
        until(lambda: target.closed == 1)


@pytest.mark.parametrize("after", [0, 1, 16, 100])
def test_an_error_comes_where_it_belongs(source, after):
    """After the items before it, as itself if the method declares it; who goes on all the same is told again."""
    proxy, _ = source
    stream = proxy.fails(after)
    assert [next(stream) for _ in range(after)] == list(range(after))
    with pytest.raises(KeyError, match="no more"):
        next(stream)
    with pytest.raises(cm.Closed, match="ended before its items had"):
        next(stream)


def test_the_end_of_the_server():
    with cm.Entrypoint("source") as entrypoint:
        target = SourceServer()
        stream = entrypoint.manage(target).cast(Source).count(10**9)
        assert next(stream) == 0
    with pytest.raises(cm.Disconnected):
        list(stream)
    with pytest.raises(cm.Closed, match="ended before its items had"):
        next(stream)
    gc.collect()
    assert target.closed == 1


def test_a_stream_of_this_very_thread():
    """Of a method that calls its own entrypoint: it runs in place."""

    class Sums(Source):
        @cm.method
        def total(self, upto: int) -> int: ...

    class SumsServer(SourceServer, Sums):
        def total(self, upto):
            return sum(self.own.count(upto))

    with cm.Entrypoint("source") as entrypoint:
        target = SumsServer()
        proxy = entrypoint.manage(target).cast(Sums)
        target.own = proxy
        assert proxy.total(1000) == 499500
        assert target.closed == 1
        del target.own


def test_a_maker_goes_on_when_its_item_is_sent(source):
    """So it may close it behind the yield, and lend out what the receiver is to give back."""

    class Lends(cm.Interface):
        @cm.method
        def files(self, how_many: int) -> Iterator[io.BufferedReader]: ...

        @cm.method
        def buffers(self, how_many: int) -> Iterator[cm.SharedBuffer]: ...

    class LendsServer(Lends):
        def files(self, how_many):
            for _ in range(how_many):
                with open("/proc/self/status", "rb") as file:
                    yield file

        def buffers(self, how_many):
            with cm.BufferPool(2, (16,), "B") as pool:
                for _ in range(how_many):
                    yield pool.take(PATIENCE)

    with cm.Entrypoint("lends") as entrypoint:
        proxy = entrypoint.manage(LendsServer()).cast(Lends)
        for file in proxy.files(40):
            with file:
                assert file.read(5) == b"Name:"
        with cm.timeout(PATIENCE):
            for buffer in proxy.buffers(10):
                buffer.close()


def test_a_stream_in_a_forked_child_is_its_parents(source, fork):
    """Each of the two would have some of its items."""
    proxy, _ = source
    stream = proxy.count(100)
    assert next(stream) == 0

    def take():
        with pytest.raises(cm.Closed, match="the stream is its parent's"):
            next(stream)
        stream.close()

    fork(take).result()
    assert list(stream) == list(range(1, 100))


def test_a_timeout_is_each_calls(source):
    """Of the proxy, as of the block that is in force when an item is wanted."""
    proxy, _ = source
    stream = cm.capability(proxy).cast(Source, timeout=PATIENCE).count(100)
    assert sum(stream) == 4950
    stream = proxy.count(100)
    assert next(stream) == 0
    with pytest.raises(cm.CallTimeout), cm.timeout(0):
        list(stream)


@matrix.takes_one_call
@pytest.mark.parametrize("says_so", [True, False])
def test_a_generator_that_waits_in_a_thread(fork, says_so):
    """Others wait as long, unless it yields something that says that there is nothing: they have their turns then."""

    class Follows(cm.Interface):
        @cm.method
        def follow(self) -> Iterator[int | None]: ...

        @cm.method
        def plain(self) -> int: ...

    class FollowsServer(Follows):
        def follow(self):
            assert cm.remaining() <= PATIENCE
            began.set()
            yield from iter(functools.partial(self.next, 0.01 if says_so else PATIENCE), 3)

        def next(self, seconds):
            with contextlib.suppress(queue.Empty):
                return items.get(timeout=seconds)
            return None

        def plain(self):
            return 3

    items, began = queue.SimpleQueue(), threading.Event()
    with cm.Entrypoint("follows") as entrypoint:
        proxy = entrypoint.manage(FollowsServer()).cast(Follows, timeout=PATIENCE)
        following = by_hand.Concurrent(lambda: [number for number in proxy.follow() if number is not None])
        assert began.wait(PATIENCE)

        def call():
            try:
                with cm.timeout(PATIENCE / 2 if says_so else 0.1):
                    return proxy.plain()
            except cm.CallTimeout:
                return "late"

        assert fork(call).result() == (3 if says_so else "late")
        for number in (1, 2, 3):
            items.put(number)
        assert following.outcome() == [1, 2]
        assert proxy.plain() == 3


@pytest.mark.parametrize("at_most", [-5, 0, 1, 1 << 40])
def test_how_many_a_stranger_wants(source, at_most):
    """At least one, and no more than are sent together."""
    proxy, _ = source
    stream = proxy.count(100)
    items, ended = stream._source.next(at_most)
    assert (len(items), ended) == ((100, True) if at_most > 100 else (1, False))


def test_a_generator_where_none_is_declared(caplog):
    """Its error says both ways out."""

    class Listed(cm.Interface):
        @cm.method
        def items(self) -> list[int]: ...

    class ListedServer(Listed):
        def items(self):
            return (number for number in range(3))

    with cm.Entrypoint("source") as entrypoint:
        proxy = entrypoint.manage(ListedServer()).cast(Listed)
        with pytest.raises(cm.RemoteError, match=r"`generator` objects cannot be sent: make a list of it, or declare"):
            proxy.items()
        # The error that was logged knows the frames in which it was raised.
        caplog.clear()


class Broken(cm.Interface):
    @cm.method
    def counts(self) -> Iterator[int]: ...


@pytest.mark.parametrize("result", [None, 5, object()])
def test_what_is_no_stream(result):
    """The caller is told, and the server's log."""

    class BrokenServer(Broken):
        def counts(self):
            return result

    with cm.Entrypoint("source") as entrypoint:
        proxy = entrypoint.manage(BrokenServer()).cast(Broken)
        with pytest.raises(cm.ArgumentError, match=r"result: .* is nothing to iterate over"):
            proxy.counts()


class Wrong(cm.Interface):
    @cm.method
    def words(self) -> Iterator[int]: ...

    @cm.method
    def records(self) -> Iterator[dict[str, list[int]]]: ...

    @cm.method
    def things(self) -> Iterator[int]: ...

    @cm.method
    def broken(self) -> Iterator[int]: ...

    @cm.method
    def slow(self) -> Iterator[int]: ...


class WrongServer(Wrong):
    going: io.FileIO

    def words(self):
        yield 1
        yield "two"

    def records(self):
        yield {"a": [1, "x"]}

    def things(self):
        yield object()

    def broken(self):
        yield from ()
        raise ValueError("not declared")

    def slow(self):
        yield len(self.going.read())


def _slow(proxy, server):
    with by_hand.pipe() as (going, go):
        server.going = going
        items = proxy.slow()
        try:
            with cm.timeout(0.01):
                next(items)
        finally:
            go.close()


@pytest.mark.parametrize(
    ("error", "words", "take"),
    [
        (cm.ArgumentError, "Wrong.words, items: Expected `int`, got `str` - at `item`", lambda p, _: list(p.words())),
        (cm.ArgumentError, r"Wrong.records, items: .* - at `item\[\.\.\.\]\[1\]`", lambda p, _: list(p.records())),
        (cm.RemoteError, "Wrong.things, items: `object` objects cannot", lambda p, _: list(p.things())),
        (cm.RemoteError, "in Wrong.broken, items, entrypoint 'wrong'", lambda p, _: list(p.broken())),
        (cm.CallTimeout, "Wrong.slow, items, entrypoint 'wrong': ", _slow),
    ],
    ids=("item", "within an item", "no data", "raised", "late"),
)
def test_errors_of_items_name_the_method_that_somebody_has_written(error, words, take, caplog):
    """The one that gives the stream, and that items were to come; also in the server's log."""
    server = WrongServer()
    with cm.Entrypoint("wrong") as entrypoint:
        proxy = entrypoint.manage(server).cast(Wrong)
        with pytest.raises(error, match=words) as caught:
            take(proxy, server)
    assert "next" not in str(caught.value)
    assert all(", items" in message and "next" not in message for message in caplog.messages)
    caplog.clear()


def test_declarations_that_cannot_work():
    """Each says what to write."""

    class Awaited(cm.Interface):
        @cm.method
        async def counts(self) -> AsyncIterator[int]: ...

    class Passed(cm.Interface):
        @cm.method
        def take(self, numbers: list[Iterator[int]]) -> None: ...

    class Unsendable(cm.Interface):
        @cm.method
        def files(self) -> Iterator[object]: ...

    class Yields(cm.Interface):
        @cm.method
        def counts(self) -> Iterator[int]:
            yield 1

    for interface, words in (
        (Awaited, "write def, without async"),
        (Passed, "a stream is an argument or a result by itself"),
        (Unsendable, "object may be anything"),
        (Yields, r"def counts\(...\) -> Iterator\[...\]: \.\.\."),
    ):
        with by_hand.Impostor() as impostor, pytest.raises(cm.InterfaceError, match=words):
            impostor.capability.cast(interface)


def test_servers_that_cannot_work():
    class Sync(AsyncSource):
        def count(self, upto):
            yield 1

    class Async(Source):
        async def count(self, upto):
            yield 1

    class Coroutine(AsyncSource):
        async def count(self, upto):
            return 5

    class NoStream(by_hand.Work):
        def double(self, value):
            yield value

    for cls, entrypoint, words in (
        (Sync, aio.Entrypoint, "is a generator, and .* gives an AsyncIterator; write async def"),
        (Async, cm.Entrypoint, "is async, and .* is not; write def"),
        (Coroutine, aio.Entrypoint, "yield them, or write def"),
        (NoStream, cm.Entrypoint, "is a generator, and .* gives no stream"),
    ):
        cls.__abstractmethods__ = frozenset()
        made = entrypoint("broken")
        with pytest.raises(cm.InterfaceError, match=words):
            made.manage(cls())
        made.close()


def test_twins_of_streams_are_made_by_their_own():
    with pytest.raises(cm.InterfaceError, match="it gives a stream: its twin is made by awaitable_stream"):
        cm.awaitable(Source.count)
    with pytest.raises(cm.InterfaceError, match="it gives no stream: its twin is made by awaitable or blocking"):
        cm.awaitable_stream(by_hand.Work.double)
    with pytest.raises(cm.InterfaceError, match="it gives a stream: its twin is made by awaitable_stream"):
        cm.blocking_stream(Source.count)

    class Back(cm.Interface):
        count = cm.blocking_stream(AsyncSource.count)

    with cm.Entrypoint("source") as entrypoint:
        assert list(entrypoint.manage(SourceServer()).cast(Back).count(3)) == [0, 1, 2]


class Generated(cm.Interface):
    @cm.method
    def count(self, upto: int) -> Generator[int, None, None]: ...

    @cm.method
    def twice(self, upto: int) -> Generator[int, None, None]: ...


class AsyncGenerated(cm.Interface):
    @cm.method
    def count(self, upto: int) -> AsyncGenerator[int, None]: ...

    twice = cm.awaitable_stream(Generated.twice)


def test_a_stream_that_is_declared_as_a_generator():
    """Is a stream as any other; and what is done with it, it does: it is sent nothing, and what is thrown ends it."""

    class GeneratedServer(SourceServer, Generated):
        def twice(self, upto):
            for number in range(upto):
                got = yield number
                assert got is None

    with cm.Entrypoint("source") as entrypoint:
        target = GeneratedServer()
        proxy = entrypoint.manage(target).cast(Generated)
        with contextlib.closing(proxy.count(10**9)) as stream:
            assert isinstance(stream, Generator)
            assert (stream.send(None), next(stream)) == (0, 1)
            with pytest.raises(TypeError, match="a stream is sent nothing"):
                stream.send(5)
            assert next(stream) == 2
        until(lambda: target.closed == 1)
        assert list(stream) == []
        for thrown, count in ((ValueError("no"), 2), (ValueError, 3), (GeneratorExit, 4)):
            stream = proxy.count(10**9)
            assert next(stream) == 0
            with pytest.raises(ValueError if count < 4 else GeneratorExit):
                stream.throw(thrown)
            until(lambda count=count: target.closed == count)
            assert list(stream) == []

        def outer():
            yield from proxy.twice(10**9)

        going = outer()
        assert (next(going), next(going)) == (0, 1)
        going.close()
        assert entrypoint.manage(target).cast(Source).count(3).send(None) == 0


@loops.each_loop
def test_an_awaited_stream_that_is_declared_as_a_generator(loop):
    class Server(AsyncSourceServer, AsyncGenerated):
        async def twice(self, upto):
            for number in range(upto):
                yield 2 * number

    async def main():
        async with aio.Entrypoint("source") as entrypoint:
            target = Server()
            proxy = entrypoint.manage(target).cast(AsyncGenerated)
            async with contextlib.aclosing(proxy.count(10**9)) as stream:
                assert isinstance(stream, AsyncGenerator)
                assert (await stream.asend(None), await anext(stream)) == (0, 1)
                with pytest.raises(TypeError, match="a stream is sent nothing"):
                    await stream.asend(5)
            await settled(lambda: target.closed == 1)
            stream = proxy.count(10**9)
            assert await anext(stream) == 0
            with pytest.raises(ValueError, match="no"):
                await stream.athrow(ValueError("no"))
            await settled(lambda: target.closed == 2)
            assert [number async for number in stream] == []
            assert [number async for number in proxy.twice(3)] == [0, 2, 4]

    loops.run(loop, main)


class Held:
    """What a method has, as an argument of its own."""


@contextlib.contextmanager
def no_collector():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_an_error_behind_items_keeps_nothing_of_who_takes_them():
    """As long as it is not raised; what he deals with meanwhile keeps its traceback."""
    fetched, held = Fetched(), []

    def fetch():
        mine = Held()
        held.append(weakref.ref(mine))
        try:
            raise cm.StaleCapability("in a batch")
        except cm.StaleCapability as stale:
            failure = cm.StaleCapability(f"result: {stale}")
            bring_items(failure, tuple[list[str], bool], msgspec.msgpack.encode((["one"], False)))
            raise failure from None

    with no_collector():
        try:
            raise ValueError("his own")
        except ValueError as own:
            try:
                fetch()
            except cm.StaleCapability as error:
                assert fetched.keeps(error, own)
            assert own.__traceback__ is not None
        assert held.pop()() is None


def test_what_is_thrown_into_a_stream_keeps_nothing_of_who_throws():
    """It is not left to the collector: the call's own files would stay open so long."""

    def method(stream):
        mine = Held()
        with contextlib.suppress(ValueError):
            stream.throw(ValueError("no"))
        return weakref.ref(mine)

    with cm.Entrypoint("source") as entrypoint, no_collector():
        stream = entrypoint.manage(SourceServer()).cast(Generated).count(3)
        assert method(stream)() is None
        with pytest.raises(TypeError, match="what is thrown is an exception, or its class, not 3"):
            stream.throw(3)


@loops.each_loop
def test_what_is_thrown_into_an_awaited_stream_keeps_nothing_of_who_throws(loop):
    async def method(stream):
        mine = Held()
        with contextlib.suppress(ValueError):
            await stream.athrow(ValueError("no"))
        return weakref.ref(mine)

    async def main():
        async with aio.Entrypoint("source") as entrypoint:
            with no_collector():
                stream = entrypoint.manage(AsyncSourceServer()).cast(AsyncGenerated).count(3)
                assert (await method(stream))() is None
                with pytest.raises(TypeError, match="what is thrown is an exception, or its class, not 3"):
                    await stream.athrow(3)

    loops.run(loop, main)


def test_generators_that_cannot_be_declared():
    """A stream goes one way."""

    class Sent(cm.Interface):
        @cm.method
        def counts(self) -> Generator[int, str, None]: ...

    class Returns(cm.Interface):
        @cm.method
        def counts(self) -> Generator[int, None, str]: ...

    class AsyncSent(cm.Interface):
        @cm.method
        def counts(self) -> AsyncGenerator[int, str]: ...

    class Passed(cm.Interface):
        @cm.method
        def take(self, numbers: Generator[int, None, None]) -> None: ...

    for interface, words in (
        (Sent, r"result: a stream is sent nothing, .* declare it as Generator\[..., None, None\], or as Iterator"),
        (Returns, r"and returns nothing: declare it as Generator\[..., None, None\]"),
        (AsyncSent, r"declare it as AsyncGenerator\[..., None\], or as AsyncIterator\[...\]"),
        (Passed, r"a stream is an argument or a result by itself, and not within another: Iterator\[...\]"),
    ):
        with by_hand.Impostor() as impostor, pytest.raises(cm.InterfaceError, match=words):
            impostor.capability.cast(interface)


@contextlib.asynccontextmanager
async def served():
    async with aio.Entrypoint("source") as entrypoint:
        target = AsyncSourceServer()
        yield entrypoint.manage(target).cast(AsyncSource), target


@loops.each_loop
def test_awaited_items(loop):
    async def main():
        async with served() as (proxy, target):
            assert [number async for number in proxy.count(5000)] == list(range(5000))
            assert (target.made, target.closed) == (5000, 1)
            with io.BufferedReader(by_hand.temporary(b"line\n" * 300)) as file:
                assert [line async for line in proxy.lines(file)] == [b"line\n"] * 300
            async for file in proxy.files(100):
                file.close()
            assert await proxy.plain() == 3

    loops.run(loop, main)


@loops.each_loop
def test_awaited_errors(loop):
    async def main():
        async with served() as (proxy, _):
            for after in (0, 1, 100):
                stream = proxy.fails(after)
                assert [await anext(stream) for _ in range(after)] == list(range(after))
                with pytest.raises(KeyError, match="no more"):
                    await anext(stream)
                with pytest.raises(cm.Closed, match="it raised KeyError"):
                    await anext(stream)

    loops.run(loop, main)


@loops.each_loop
def test_an_awaited_stream_that_is_left(loop):
    """Closed, dropped, or its task cancelled: the server's generator is closed, in the task that iterates."""

    async def main():
        async with served() as (proxy, target):
            stream = proxy.count(10**9)
            assert await anext(stream) == 0
            assert target.made <= 200
            await stream.aclose()
            await settled(lambda: target.closed == 1)
            stream = proxy.count(10**9)
            assert await anext(stream) == 0
            del stream
            gc.collect()
            await settled(lambda: target.closed == 2)
            with anyio.move_on_after(0.05):
                async for _ in proxy.count(10**9):
                    pass
            gc.collect()
            await settled(lambda: target.closed == 3)
            begun = proxy.count(5)
            assert await anext(begun) == 0

    loops.run(loop, main)


@loops.each_loop
def test_who_does_not_wait_for_the_end_of_awaited_ones(loop):
    """The service ends, and with it what iterates."""

    async def main():
        async with served() as (proxy, target):
            stream = proxy.count(10**9)
            assert await anext(stream) == 0
        assert target.closed == 1
        with pytest.raises(cm.Disconnected):
            async for _ in stream:
                pass

    loops.run(loop, main)


def test_a_loops_server_and_a_threads_client():
    """Twins: the wire knows nothing of colours."""

    class Back(cm.Interface):
        count = cm.blocking_stream(AsyncSource.count)

    async def main():
        async with served() as (proxy, target):
            back = cm.capability(proxy).cast(Back)
            assert await anyio.to_thread.run_sync(lambda: list(back.count(1000))) == list(range(1000))
            assert target.closed == 1

    loops.run("asyncio", main)


def test_a_badge_of_a_stream_is_its_doors(source):
    """A stream has a door of its own, and goes with it."""
    proxy, _ = source
    stream = proxy.count(5)
    its = cm.capability(stream._source)
    assert its.name != cm.capability(proxy).name
    assert badge_of(its) != badge_of(cm.capability(proxy))
