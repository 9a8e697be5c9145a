"""Items of a stream: sent as they were given, bounded however large they are, and the right ones before a wrong one."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

import anyio
import pytest

import capmarshal as cm
import loops
from capmarshal import aio
from patience import until
from telling import settled

pytestmark = pytest.mark.usefixtures("forgotten_log")


class Source(cm.Interface):
    @cm.method
    def rows(self, how_many: int) -> Iterator[list[int]]: ...

    @cm.method
    def blobs(self, size: int) -> Iterator[bytes]: ...

    @cm.method
    def records(self, size: int) -> Iterator[tuple[int, bytes]]: ...

    @cm.method
    def numbers(self, wrong: int) -> Iterator[int]: ...

    @cm.method
    def files(self, wrong: int) -> Iterator[cm.Descriptor | None]: ...

    @cm.method
    def wrong_values(self, right: int) -> Iterator[list[int]]: ...

    @cm.method
    def wrong_class(self, right: int) -> Iterator[int]: ...

    @cm.method
    def wrong_files(self, right: int) -> Iterator[tuple[int, cm.Descriptor | None]]: ...


class AsyncSource(cm.Interface):
    wrong_values = cm.awaitable_stream(Source.wrong_values)
    wrong_class = cm.awaitable_stream(Source.wrong_class)
    wrong_files = cm.awaitable_stream(Source.wrong_files)
    rows = cm.awaitable_stream(Source.rows)
    blobs = cm.awaitable_stream(Source.blobs)
    records = cm.awaitable_stream(Source.records)
    numbers = cm.awaitable_stream(Source.numbers)
    files = cm.awaitable_stream(Source.files)


def memfd():
    return cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC))


class SourceServer(Source):
    def __init__(self):
        self.made = self.closed = 0

    def rows(self, how_many):
        row = []
        for number in range(how_many):
            row[:] = [number]
            yield row
            # Whoever has had it may not be told of this.
            row[:] = [-1]

    def blobs(self, size):
        while True:
            self.made += 1
            yield bytes(size)

    def records(self, size):
        while True:
            self.made += 1
            yield self.made, bytes(size)

    def numbers(self, wrong):
        try:
            yield from range(wrong)
            yield memfd()
        finally:
            self.closed += 1

    def files(self, wrong):
        try:
            for _ in range(wrong):
                yield None
            yield "no file"
        finally:
            self.closed += 1

    def wrong_values(self, right):
        yield from self.then(right, [1, "text"], lambda number: [number])

    def wrong_class(self, right):
        yield from self.then(right, "text", int)

    def wrong_files(self, right):
        yield from self.then(right, ("text", memfd()), lambda number: (number, None))

    def then(self, right, wrong, made):
        try:
            yield from map(made, range(right))
            yield wrong
            while True:
                yield made(0)
        finally:
            self.closed += 1


class AsyncSourceServer(AsyncSource):
    def __init__(self):
        self.does = SourceServer()

    async def rows(self, how_many):
        for row in self.does.rows(how_many):
            yield row

    async def blobs(self, size):
        for blob in self.does.blobs(size):
            yield blob

    async def records(self, size):
        for record in self.does.records(size):
            yield record

    async def wrong_values(self, right):
        with contextlib.closing(self.does.wrong_values(right)) as items:
            for item in items:
                yield item

    async def wrong_class(self, right):
        with contextlib.closing(self.does.wrong_class(right)) as items:
            for item in items:
                yield item

    async def wrong_files(self, right):
        with contextlib.closing(self.does.wrong_files(right)) as items:
            for item in items:
                yield item

    async def numbers(self, wrong):
        for number in self.does.numbers(wrong):
            yield number

    async def files(self, wrong):
        for file in self.does.files(wrong):
            yield file


@pytest.fixture
def source():
    """A proxy, and the object behind it."""
    with cm.Entrypoint("source") as entrypoint:
        target = SourceServer()
        yield entrypoint.manage(target).cast(Source), target


@contextlib.asynccontextmanager
async def served():
    async with aio.Entrypoint("source") as entrypoint:
        target = AsyncSourceServer()
        yield entrypoint.manage(target).cast(AsyncSource), target.does


def test_an_item_is_what_it_was_when_it_was_given(source):
    """Its maker may use it for the next one."""
    proxy, _ = source
    assert list(proxy.rows(100)) == [[number] for number in range(100)]


@loops.each_loop
def test_an_awaited_item_is_what_it_was_when_it_was_given(loop):
    async def main():
        async with served() as (proxy, _):
            assert [row async for row in proxy.rows(200)] == [[number] for number in range(200)]

    loops.run(loop, main)


@loops.each_loop
@pytest.mark.parametrize("kind", ["blobs", "records"])
@pytest.mark.parametrize(("size", "most"), [(1, 16 + 64 + 1), (16 << 10, 3 + 3 + 1), (8 << 20, 1 + 1 + 1)])
def test_no_more_is_made_ahead_than_goes_together(loop, kind, size, most):
    """Of whatever size: who takes one item and stands still costs no more than 48 KiB, and one item."""

    async def main():
        async with served() as (proxy, target):
            stream = getattr(proxy, kind)(size)
            await anext(stream)
            before = -1
            while before < target.made:
                before = target.made
                await anyio.wait_all_tasks_blocked()
            assert target.made <= most
            # It goes on.
            for _ in range(20):
                await anext(stream)
            await stream.aclose()

    loops.run(loop, main)


@pytest.mark.parametrize("kind", ["numbers", "files"])
@pytest.mark.parametrize("wrong", [0, 1, 16, 40])
def test_what_cannot_be_an_item_keeps_none_before_it_from_coming(source, kind, wrong, open_descriptors):
    """A descriptor among numbers, a text among files: the first that is wrong ends the stream."""
    proxy, target = source
    stream = getattr(proxy, kind)(wrong)
    expected = list(range(wrong)) if kind == "numbers" else [None] * wrong
    assert [next(stream) for _ in range(wrong)] == expected
    before = open_descriptors()
    with pytest.raises(cm.RemoteError, match=r"is due|Expected"):
        next(stream)
    del stream
    gc.collect()
    until(lambda: target.closed == 1)
    until(lambda: open_descriptors() <= before)


@loops.each_loop
@pytest.mark.parametrize("kind", ["numbers", "files"])
def test_what_cannot_be_an_awaited_item_keeps_none_before_it_from_coming(loop, kind):
    async def main():
        async with served() as (proxy, target):
            for wrong in (0, 1, 16, 200):
                stream = getattr(proxy, kind)(wrong)
                expected = list(range(wrong)) if kind == "numbers" else [None] * wrong
                assert [await anext(stream) for _ in range(wrong)] == expected
                with pytest.raises(cm.RemoteError, match=r"is due|Expected"):
                    await anext(stream)
                del stream
            gc.collect()
            await settled(lambda: target.closed == 4)

    loops.run(loop, main)


# What only its receiver can tell, as the server looks at the first of a class; and what can have descriptors, which the
# server looks at.
SAID = (cm.ArgumentError, cm.RemoteError)
WRONG = {
    "wrong_values": (lambda number: [number], r"at `item\[1\]`"),
    "wrong_class": (int, "Expected `int`, got `str` - at `item`"),
    "wrong_files": (lambda number: (number, None), r"at `item\[0\]`"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("right", [0, 1, 16, 40])
def test_the_right_ones_come_before_a_wrong_one(source, kind, right, open_descriptors):
    """And then an error, as whoever goes on is told; the generator is closed, and what came is."""
    proxy, target = source
    made, words = WRONG[kind]
    # With a channel that is kept.
    assert list(proxy.rows(1)) == [[0]]
    before = open_descriptors()
    stream = getattr(proxy, kind)(right)
    assert [next(stream) for _ in range(right)] == [made(number) for number in range(right)]
    with pytest.raises(SAID, match=words) as raised:
        next(stream)
    # Where it is raised again, it brings none of them.
    assert not [name for name in vars(raised.value) if name.startswith("__capmarshal")]
    with pytest.raises(cm.Closed, match="it raised"):
        next(stream)
    del stream, raised
    gc.collect()
    until(lambda: target.closed == 1)
    until(lambda: open_descriptors() <= before)


def test_who_closes_the_stream_before_the_wrong_one_is_not_told(source):
    """And nothing of it is kept."""
    proxy, target = source
    stream = proxy.wrong_values(10)
    assert next(stream) == [0]
    stream.close()
    assert list(stream) == []
    until(lambda: target.closed == 1)


@loops.each_loop
@pytest.mark.parametrize("kind", WRONG)
def test_the_right_ones_come_before_a_wrong_one_that_is_awaited(loop, kind):
    made, words = WRONG[kind]

    async def main():
        async with served() as (proxy, target):
            for right in (0, 1, 16, 200):
                stream = getattr(proxy, kind)(right)
                assert [await anext(stream) for _ in range(right)] == [made(number) for number in range(right)]
                with pytest.raises(SAID, match=words):
                    await anext(stream)
                with pytest.raises(cm.Closed, match="it raised"):
                    await anext(stream)
                del stream
            gc.collect()
            await settled(lambda: target.closed == 4)

    loops.run(loop, main)
