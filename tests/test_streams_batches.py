"""What comes of a stream at once, what waits for the next time, and what becomes of what nobody takes."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import os
import select
import signal
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.lowlevel
import pytest

import by_hand
import capmarshal as cm
import loops
from capmarshal import aio
from capmarshal._async_server import streams as awaited_streams
from patience import PATIENCE, until

HALF = 40 << 10


class Source(cm.Interface):
    @cm.method
    def items(self, sizes: list[tuple[int, int]]) -> Iterator[tuple[bytes, list[cm.Descriptor]]]: ...

    @cm.method
    def kept(self, sizes: list[int]) -> Iterator[tuple[bytes, cm.Descriptor | None]]: ...

    @cm.method
    def slow(self, go: cm.Descriptor) -> Iterator[int]: ...

    @cm.method
    def closes_badly(self) -> Iterator[int]: ...

    @cm.method
    def blobs(self, how_many: int) -> Iterator[bytes]: ...

    @cm.method
    def block(self, started: cm.Descriptor, go: cm.Descriptor) -> Iterator[int]: ...


def made():
    return cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC))


class ClosesBadly:
    """Has three items, and cannot be closed."""

    def __init__(self):
        self._items = iter((1, 2, 3))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._items)

    def close(self):
        raise LookupError("cannot be closed")


class SourceServer(Source):
    def __init__(self):
        self.mine = []
        self.made = self.closed = 0

    def items(self, sizes):
        try:
            for size, count in sizes:
                yield bytes(size), [made() for _ in range(count)]
        finally:
            self.closed += 1

    def kept(self, sizes):
        yield bytes(sizes[0]), None
        for size in sizes[1:]:
            self.mine.append(cm.keep(made()))
            yield bytes(size), self.mine[-1]

    def slow(self, go):
        yield 0
        # Much longer than an item may take that others are waited for with.
        time.sleep(0.01)
        yield 1
        assert select.select([go], [], [], PATIENCE)[0]
        yield 2

    def closes_badly(self):
        return ClosesBadly()

    def blobs(self, how_many):
        try:
            for _ in range(how_many):
                self.made += 1
                yield bytes(10_000)
        finally:
            self.closed += 1

    def block(self, started, go):
        os.write(started.fileno(), b".")
        assert select.select([go], [], [], PATIENCE)[0]
        return self._two()

    def _two(self):
        try:
            yield 1
            yield 2
        finally:
            self.closed += 1


@pytest.fixture
def served(request):
    """A proxy, the object behind it, and their entrypoint."""
    with cm.Entrypoint("source", max_descriptors=300) as entrypoint:
        target = SourceServer()
        yield entrypoint.manage(target).cast(Source), target, entrypoint
    # pytest still holds it when the descriptors are counted.
    request.node.funcargs.pop("served")


def test_items_before_one_that_is_too_large_have_come(served):
    """Of data as well, which else go with what is behind them."""
    proxy, _, _ = served
    stream = proxy.items([(1, 0)] * 3 + [(1, 301)])
    assert [next(stream) for _ in range(3)] == [(b"\0", [])] * 3
    with pytest.raises(cm.TooLarge, match="max_descriptors"):
        next(stream)


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_what_was_fetched_and_nobody_takes_is_closed(served, how):
    """Without a warning: nobody had it who has forgotten to close it."""
    proxy, target, _ = served
    stream = proxy.items([(1, 0), (1, 0), (1, 3)])
    assert next(stream) == (b"\0", [])
    if how == "closed":
        stream.close()
    del stream
    gc.collect()
    until(lambda: target.closed)


def test_what_was_made_and_nobody_fetches_is_closed(served):
    """It was not sent with the one before it, which left it no room."""
    proxy, target, _ = served
    stream = proxy.items([(HALF, 0), (HALF, 3), (1, 0)])
    assert next(stream) == (bytes(HALF), [])
    del stream
    gc.collect()
    until(lambda: target.closed)


def test_what_is_kept_of_an_item_that_waits_is_kept(served):
    """As of one that is sent at once."""
    proxy, target, _ = served
    for _, file in proxy.kept([HALF] * 4):
        if file is not None:
            file.close()
    assert len({os.fstat(file.fileno()).st_ino for file in target.mine}) == 3
    for file in target.mine:
        file.close()


def test_who_is_slow_has_no_other_waited_for_behind_it(served):
    """Its item comes, though the next one is made only when somebody has had it."""
    proxy, _, _ = served
    with by_hand.pipe() as (going, go):
        stream = proxy.slow(going)
        assert [next(stream), next(stream)] == [0, 1]
        go.write(b".")
        assert list(stream) == [2]


def test_the_timeout_of_a_proxy_is_that_of_each_fetch(served):
    """As of its other calls."""
    proxy, _, _ = served
    with by_hand.pipe() as (going, go):
        stream = cm.capability(proxy).cast(Source, timeout=0.2).slow(going)
        with pytest.raises(cm.CallTimeout):
            list(stream)
        go.write(b".")


def test_what_cannot_be_closed_has_given_all_its_items(served, caplog):
    """And then says that; its server goes on."""
    proxy, _, _ = served
    stream = proxy.closes_badly()
    assert [next(stream) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(cm.RemoteError, match="cannot be closed"):
        next(stream)
    assert len(list(proxy.blobs(2))) == 2
    caplog.clear()


def test_a_stream_that_is_begun_while_its_grant_is_revoked(served):
    """The call is answered, and what it has begun is revoked already."""
    _, target, entrypoint = served
    granted = entrypoint.grant(target)
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        beginning = by_hand.Concurrent(granted.cast(Source).block, began, going)
        assert started.read(1) == b"."
        entrypoint.revoke(granted, "misbehaved")
        go.write(b".")
        stream = beginning.outcome()
    with pytest.raises(cm.Revoked, match="misbehaved"):
        next(stream)
    assert not entrypoint._service.grants._in_force


def test_a_client_that_asks_and_takes_nothing(served, fork):
    """By many channels at once: each has one answer made more than lies in its queue, and others are served."""
    proxy, target, _ = served
    channels = 16

    def ask():
        stream = proxy.blobs(10**9)
        next(stream)
        pull = cm.capability(stream._source)
        near = [by_hand.knock(pull) for _ in range(channels)]
        for each in near:
            each.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    each.send(by_hand.call(pull, b"next", b"\x91\xcd\xff\xff"))
        os.kill(os.getpid(), signal.SIGSTOP)

    child = fork(ask)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)

    def settled():
        before = target.made
        assert len(list(proxy.items([(1, 0)] * 100))) == 100
        return before == target.made

    until(settled)
    # Of 48 KiB each, in queues of 208 KiB.
    assert target.made <= 5 + channels * 5 * 6
    ended = target.closed
    child.kill()
    until(lambda: target.closed == ended + 1)


class Pulled(cm.Interface):
    @cm.method
    def next(self, at_most: int) -> tuple[list[int], bool]: ...


class Gives(cm.Interface):
    """As `Numbers`, but that what is pulled from is any object."""

    @cm.method
    def numbers(self) -> Pulled: ...


class Numbers(cm.Interface):
    @cm.method
    def numbers(self) -> Iterator[int]: ...


class Giver(Gives, Pulled):
    def __init__(self, asked):
        self._asked = asked

    def numbers(self):
        return Giver(self._asked)

    def next(self, at_most):
        self._asked.append(at_most)
        return [1] * at_most, False


def test_how_many_are_asked_for():
    """At first a few, and at most 1,024 of one that is taken from for long."""
    asked = []
    with cm.Entrypoint("source") as entrypoint:
        stream = entrypoint.manage(Giver(asked)).cast(Numbers).numbers()
        assert sum(next(stream) for _ in range(5000)) == 5000
        stream.close()
        del stream
    assert asked == [16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024]


class AsyncSource(cm.Interface):
    @cm.method
    def lends(self, how_many: int) -> AsyncIterator[io.BufferedReader]: ...

    @cm.method
    def waits(self) -> AsyncIterator[int]: ...

    @cm.method
    def remaining(self) -> AsyncIterator[float]: ...


class AsyncSourceServer(AsyncSource):
    def __init__(self):
        self.begin, self.is_made, self.go_on = anyio.Event(), anyio.Event(), anyio.Event()

    async def lends(self, how_many):
        for _ in range(how_many):
            with open("/proc/self/status", "rb") as file:
                yield file

    async def waits(self):
        yield 0
        await self.begin.wait()
        yield 1
        self.is_made.set()
        await self.go_on.wait()
        yield 2

    async def remaining(self):
        while True:
            yield cm.remaining()


@contextlib.asynccontextmanager
async def awaited():
    async with aio.Entrypoint("source") as entrypoint:
        target = AsyncSourceServer()
        yield entrypoint.manage(target).cast(AsyncSource), target


@loops.each_loop
def test_an_awaited_maker_goes_on_when_its_file_is_sent(loop):
    """So it may close it behind the yield."""

    async def main():
        async with awaited() as (proxy, _):
            async for file in proxy.lends(40):
                with file:
                    assert file.read(5) == b"Name:"

    loops.run(loop, main)


@loops.each_loop
def test_awaited_items_of_a_call_that_is_cancelled(loop, monkeypatch):
    """Those that it had already, and waited for more with, are there for the next one."""

    async def main():
        async with awaited() as (proxy, target):
            stream = proxy.waits()
            assert await anext(stream) == 0
            found = (each for each in gc.get_objects() if issubclass(type(each), awaited_streams.AwaitedProducer))
            (producer,) = (each for each in found if not each._over)
            # More than the page says are waited for: so it is cancelled in the middle of that.
            with monkeypatch.context() as patched:
                patched.setattr(awaited_streams, "_SLOW", PATIENCE)
                async with anyio.create_task_group() as group:
                    group.start_soon(stream._source.next, 10)
                    target.begin.set()
                    await target.is_made.wait()
                    while producer._made:
                        await anyio.lowlevel.checkpoint()
                    group.cancel_scope.cancel()
                # Its server hears of that later.
                while not producer._made:
                    await anyio.lowlevel.checkpoint()
            target.go_on.set()
            taken, ended = [], False
            while not ended:
                items, ended = await stream._source.next(10)
                taken += items
            assert taken == [1, 2]

    loops.run(loop, main)


@loops.each_loop
def test_a_deadline_of_the_call_that_begins_an_awaited_stream_is_not_the_streams(loop):
    """What iterates goes on for whoever takes items later."""

    async def main():
        async with awaited() as (proxy, _):
            with cm.timeout(PATIENCE):
                stream = proxy.remaining()
                assert await anext(stream) == math.inf
            assert await anext(stream) == math.inf
            await stream.aclose()

    loops.run(loop, main)
