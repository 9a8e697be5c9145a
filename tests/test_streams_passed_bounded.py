"""Items of streams that are arguments are bounded by who takes them, as arguments are (`_protocol/answer_bound`)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

import by_hand
import capmarshal as cm
import loops
import parts_by_hand
from capmarshal import aio
from capmarshal._server.limits import Limits
from capmarshal._server.shares import Shares
from patience import PATIENCE, until

MOST_BYTES, MOST_DESCRIPTORS = 20_000, 4
WHOSE = "of entrypoint 'bounded', which takes it, is"


class Store(cm.Interface):
    @cm.method
    def lengths(self, lines: Iterator[str]) -> list[int]: ...

    @cm.method
    def files(self, files: Iterator[list[cm.Descriptor]]) -> int: ...

    @cm.method
    def long_result_behind(self, lines: Iterator[str], long: Long) -> int: ...


class Long(cm.Interface):
    @cm.method
    def result(self) -> bytes: ...


class LongServer(Long):
    def result(self):
        return bytes(1 << 20)


def closed(files):
    """How many these were."""
    for file in files:
        file.close()
    return len(files)


class StoreServer(Store):
    def lengths(self, lines):
        return [len(line) for line in lines]

    def files(self, files):
        return sum(closed(some) for some in files)

    def long_result_behind(self, lines, long):
        next(lines)
        return len(long.result())


class AsyncLong(cm.Interface):
    result = cm.awaitable(Long.result)


class AsyncStore(cm.Interface):
    @cm.method
    async def lengths(self, lines: AsyncIterator[str]) -> list[int]: ...

    @cm.method
    async def files(self, files: AsyncIterator[list[cm.Descriptor]]) -> int: ...

    @cm.method
    async def long_result_behind(self, lines: AsyncIterator[str], long: AsyncLong) -> int: ...


class AsyncStoreServer(AsyncStore):
    async def lengths(self, lines):
        return [len(line) async for line in lines]

    async def files(self, files):
        return sum([closed(some) async for some in files])

    async def long_result_behind(self, lines, long):
        await anext(lines)
        return len(await long.result())


@contextlib.contextmanager
def served_in(colour, **options):
    """A proxy of a server of a colour, in a thread."""
    if colour == "blocking":
        with cm.Entrypoint("bounded", **options) as entrypoint:
            yield entrypoint.manage(StoreServer()).cast(Store, timeout=PATIENCE)
        return
    begun, over, made = threading.Event(), [], []

    async def serve():
        async with aio.Entrypoint("bounded", **options) as entrypoint:
            made.append(entrypoint.manage(AsyncStoreServer()))
            over.append(anyio.Event())
            begun.set()
            await over[0].wait()

    async def finish():
        over[0].set()

    with anyio.from_thread.start_blocking_portal(**loops.LOOPS[colour]) as portal:
        serving = portal.start_task_soon(serve)
        assert begun.wait(PATIENCE)
        yield made.pop().cast(Store, timeout=PATIENCE)
        portal.call(finish)
        serving.result(PATIENCE)


@pytest.fixture(params=("blocking", *loops.LOOPS))
def store(request):
    with served_in(request.param, max_bytes=MOST_BYTES, max_descriptors=MOST_DESCRIPTORS) as proxy:
        yield proxy
    request.node.funcargs.pop("store")


class Closed:
    """Iterates, and says whether it is closed."""

    def __init__(self):
        self.closed = False

    def __call__(self, *items):
        try:
            yield from items
        finally:
            self.closed = True


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 10_000_000], ids=["in one record", "in parts"])
def test_bytes_of_an_item(store, size, caplog):
    """What is too large is refused, with whose limit it was; and the stream ends."""
    items = Closed()
    with pytest.raises(cm.RemoteError, match=f"TooLarge: an item .* {WHOSE} {MOST_BYTES} .max_bytes"):
        store.lengths(items("x", "x" * size, "never"))
    until(lambda: items.closed)
    caplog.clear()


def opened(count):
    """So many files, for a stream to close."""
    return [open("/dev/null", "rb") for _ in range(count)]


@pytest.mark.parametrize("count", [MOST_DESCRIPTORS + 1, 300], ids=["in one record", "in parts"])
def test_descriptors_of_an_item(store, count, caplog):
    """The same, and what came is closed."""
    with pytest.raises(cm.RemoteError, match=f"{count} descriptors; .* {WHOSE} {MOST_DESCRIPTORS} .max_descriptors"):
        store.files(iter([opened(count)]))
    assert store.files(iter([opened(MOST_DESCRIPTORS)])) == MOST_DESCRIPTORS
    caplog.clear()


class Pull(cm.Interface):
    """What a stream is on the wire."""

    @cm.method
    def next(self, at_most: int) -> tuple[list[str], bool]: ...


class PulledStore(cm.Interface):
    @cm.method
    def lengths(self, lines: Pull) -> list[int]: ...


@pytest.mark.parametrize(("size", "descriptors"), [(MOST_BYTES + 1, 0), (10, MOST_DESCRIPTORS + 1)])
def test_what_is_announced_only(store, size, descriptors, caplog):
    """A client by hand says how much is to come: no room is made for it, and no part of it is waited for."""
    with by_hand.Impostor() as impostor:
        pulled = impostor.capability.cast(Pull)
        proxy = cm.capability(store).cast(PulledStore, timeout=PATIENCE)
        call = by_hand.Concurrent(lambda: proxy.lengths(pulled))
        with impostor.accept() as channel:
            channel.recv(4096)
            channel.send(parts_by_hand.begin(size, descriptors))
            with pytest.raises(cm.RemoteError, match=f"TooLarge: .* {WHOSE}"):
                call.outcome()
            assert by_hand.ended(channel)
    caplog.clear()


def test_items_that_are_too_much_together(store):
    """They come one after the other: their maker puts more of them together than this server takes at once."""
    assert store.lengths("x" * 9_000 for _ in range(20)) == [9_000] * 20


@pytest.mark.parametrize("colour", ["blocking", "asyncio"])
def test_who_takes_more_than_others_is_given_more(colour):
    """The caller, who serves the items, has no maximum of his own for them: only a call's arguments have one there."""
    with served_in(colour, max_bytes=200 << 20, max_descriptors=2000) as proxy:
        assert proxy.lengths(iter(["x" * (65 << 20)])) == [65 << 20]
        assert proxy.files(iter([opened(1100)])) == 1100


def test_an_item_that_nobody_takes():
    """It says that it is an item, and of no entrypoint that the caller has not made."""
    shares = Shares(Limits(), 1000, 4)
    shares.give_items()
    assert not shares.result_too_large(1 << 30, 5)
    assert shares.arguments_too_large(1001, 0)
    assert "an item has 1073741824 and 65535 at most" in shares.result_too_large((1 << 30) + 1, 0)


def test_a_stream_of_the_servers_own_that_comes_back():
    """What makes its items runs where they are pulled, in the thread that serves: no call that it makes is bounded."""

    class Search(cm.Interface):
        @cm.method
        def found(self) -> Iterator[int]: ...

        @cm.method
        def add(self, numbers: Iterator[int]) -> int: ...

    class SearchServer(Search):
        def found(self):
            yield len(long.result())

        def add(self, numbers):
            return sum(numbers)

    with cm.Entrypoint("long") as other, cm.Entrypoint("bounded", max_bytes=MOST_BYTES) as entrypoint:
        long = other.manage(LongServer()).cast(Long)
        search = entrypoint.manage(SearchServer()).cast(Search, timeout=PATIENCE)
        assert search.add(search.found()) == 1 << 20


def test_other_answers_are_not_bounded_by_it(store):
    """In a method that has taken an item."""
    with cm.Entrypoint("long") as entrypoint:
        long = entrypoint.manage(LongServer())
        assert store.long_result_behind(iter("ab"), long.cast(Long)) == 1 << 20
