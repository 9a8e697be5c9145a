"""In a generator: who has begun the stream, and keeping what came, at each step of it, in each colour."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from loops import LOOPS, each_loop, run
from patience import PATIENCE, until
from telling import settled

STEPS = ("first", "later", "end")


class Source(cm.Interface):
    @cm.method
    def callers(self, how_many: int) -> Iterator[tuple[int, str]]: ...

    @cm.method
    def keeps(self, file: cm.Descriptor, when: str) -> Iterator[int]: ...

    @cm.method
    def lends(self, how_many: int) -> Iterator[cm.Descriptor]: ...

    @cm.method
    def hold(self, file: cm.Descriptor) -> tuple[int, str]: ...

    @cm.method
    def within(self, file: cm.Descriptor) -> Iterator[tuple[int, str]]: ...


class AsyncSource(cm.Interface):
    callers = cm.awaitable_stream(Source.callers)
    keeps = cm.awaitable_stream(Source.keeps)
    lends = cm.awaitable_stream(Source.lends)
    hold = cm.awaitable(Source.hold)
    within = cm.awaitable_stream(Source.within)


def caller():
    found = cm.caller()
    return found.pid, found.label


class SourceServer(Source):
    def __init__(self):
        self.files, self.held, self.ended, self.later = [], [], [], None
        self.own = None

    def callers(self, how_many):
        try:
            for _ in range(how_many):
                yield caller()
        finally:
            self.ended.append(caller())

    def keeps(self, file, when):
        self.files.append(file)

        def keep(now):
            if when == now:
                cm.keep(file)

        try:
            keep("first")
            for number in range(100):
                yield number
                keep("later")
        finally:
            keep("end")
            self.ended.append(when)

    def lends(self, how_many):
        for number in range(how_many):
            file = cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC))
            self.files.append(cm.keep(file) if number % 2 else file)
            yield file

    def hold(self, file):
        self.held.append(cm.keep(file))
        return caller()

    def within(self, file):
        yield caller()
        yield self.own.hold(file)
        yield caller()


class AsyncSourceServer(AsyncSource):
    """The same, awaited."""

    def __init__(self):
        self.does = SourceServer()

    async def callers(self, how_many):
        with contextlib.closing(self.does.callers(how_many)) as items:
            for item in items:
                yield item

    async def keeps(self, file, when):
        with contextlib.closing(self.does.keeps(file, when)) as items:
            for item in items:
                yield item

    async def lends(self, how_many):
        for item in self.does.lends(how_many):
            yield item

    async def hold(self, file):
        return self.does.hold(file)

    async def within(self, file):
        yield caller()
        yield await cm.capability(self.does.own).cast(AsyncSource).hold(file)
        yield caller()


@contextlib.contextmanager
def in_a_thread():
    target = SourceServer()
    with cm.Entrypoint("source") as entrypoint:
        yield entrypoint, target, target


@contextlib.contextmanager
def in_a_loop(loop):
    target, entrypoint = AsyncSourceServer(), aio.Entrypoint("source")
    thread = by_hand.Concurrent(functools.partial(run, loop, entrypoint.serve_forever, seconds=4 * PATIENCE))
    try:
        yield entrypoint, target, target.does
    finally:
        entrypoint.close()
        thread.outcome()


@pytest.fixture(params=["blocking", *LOOPS])
def served(request):
    """(entrypoint, its object, what that does), of each colour."""
    with in_a_thread() if request.param == "blocking" else in_a_loop(request.param) as made:
        yield made
        made[2].own = None
    request.node.funcargs.pop("served")


def is_open(file):
    return not file.closed and bool(os.fstat(file.fileno()))


@pytest.fixture
def file():
    with cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC)) as made:
        yield made


def test_who_has_begun_the_stream(served, fork):
    """As in any method, by the label of the grant, or none: at each step, whoever takes the items, and at the end."""
    entrypoint, target, does = served
    for label, capability in (
        ("", entrypoint.manage(target)),
        ("plugin 3", entrypoint.grant(target, label="plugin 3")),
    ):
        me = (os.getpid(), label)
        assert list(capability.cast(Source).callers(200)) == [me] * 200
        pid, found = fork(
            lambda capability=capability: (os.getpid(), list(capability.cast(Source).callers(3)))
        ).result()
        assert found == [(pid, label)] * 3
        # It has what is pulled from, and takes what this process has begun.
        stream = capability.cast(Source).callers(200)
        assert next(stream) == me
        pull = stream._source
        items, ended = fork(lambda pull=pull: pull.next(5)).result()
        assert (set(items), ended) == ({me}, False)
        assert does.ended == [me, (pid, label)]
        del stream, pull
        gc.collect()
        until(lambda: len(does.ended) == 3)
        assert does.ended.pop() == me
        does.ended.clear()


@pytest.mark.parametrize("how", ["whole", "left"])
@pytest.mark.parametrize("when", [*STEPS, "never"])
def test_what_came_with_the_call_is_kept_at_any_step(served, file, when, how):
    """And closed where it is not; also where the generator is closed for its receiver's sake."""
    entrypoint, target, does = served
    stream = entrypoint.manage(target).cast(Source).keeps(file, when)
    assert [next(stream) for _ in range(20)] == list(range(20))
    if how == "whole":
        assert list(stream) == list(range(20, 100))
    del stream
    gc.collect()
    until(lambda: does.ended)
    [came] = does.files
    if when == "never":
        until(lambda: came.closed)
    else:
        assert is_open(came)
        came.close()


def test_an_item_that_is_kept_is_not_closed_with_what_nobody_takes(served):
    """Nor when it is sent; every other one is closed."""
    entrypoint, target, does = served
    stream = entrypoint.manage(target).cast(Source).lends(40)
    for _ in range(20):
        next(stream).close()
    del stream
    gc.collect()
    until(lambda: all(made.closed for made in does.files[::2]))
    assert len(does.files) >= 20
    for made in does.files[1::2]:
        assert is_open(made)
        made.close()


@each_loop
def test_what_is_kept_of_items_that_nobody_takes_is_let_go(loop, file):
    """When the stream is over, whoever has it still."""

    class Ahead(cm.Interface):
        @cm.method
        def keeps(self, file: cm.Descriptor) -> AsyncIterator[int]: ...

    class AheadServer(Ahead):
        async def keeps(self, file):
            yield 0
            await taken.wait()
            cm.keep(file)
            yield 1
            made.set()
            await anyio.sleep_forever()

    taken, made = anyio.Event(), anyio.Event()

    async def main():
        async with aio.Entrypoint("ahead") as entrypoint:
            stream = entrypoint.manage(AheadServer()).cast(Ahead).keeps(file)
            assert await anext(stream) == 0
            taken.set()
            await made.wait()
            (producer,) = entrypoint._service._calls.producers
            ((kept,),) = producer._kept.values()
            await stream.aclose()
            await settled(lambda: producer._over)
            assert not producer._kept
            kept.close()

    run(loop, main)


def test_a_call_that_a_generator_makes_is_its_own(served, file):
    """Who calls is this process, and what its method keeps is kept of that call."""
    entrypoint, target, does = served
    does.own = entrypoint.manage(target).cast(Source)
    granted = entrypoint.grant(target, label="plugin 3")
    me = os.getpid()
    assert list(granted.cast(Source).within(file)) == [(me, "plugin 3"), (me, ""), (me, "plugin 3")]
    [held] = does.held
    assert is_open(held)
    held.close()


def test_when_the_stream_is_over_nobody_calls(served):
    """As after a method: a thread that it has started is told so."""
    entrypoint, target, does = served
    told, go_on = [], threading.Event()

    def callers(_how_many):
        def late():
            assert go_on.wait(PATIENCE)
            with pytest.raises(RuntimeError, match="nobody calls here"):
                cm.caller()
            told.append(True)

        does.later = by_hand.Concurrent(contextvars.copy_context().run, late)
        yield caller()

    does.callers = callers
    assert list(entrypoint.manage(target).cast(Source).callers(1)) == [(os.getpid(), "")]
    go_on.set()
    does.later.outcome()
    assert told == [True]
    does.later = does.callers = None


class Taking(cm.Interface):
    @cm.method
    def take(self, files: Iterator[cm.Descriptor]) -> int: ...


class AsyncTaking(cm.Interface):
    @cm.method
    async def take(self, files: AsyncIterator[cm.Descriptor]) -> int: ...


class TakingServer(Taking):
    def take(self, files):
        return sum(file.close() is None for file in files)


class AsyncTakingServer(AsyncTaking):
    async def take(self, files):
        return sum([file.close() is None async for file in files])


class Gives:
    """What one gives who calls, and keeps every other one of."""

    def __init__(self):
        self.files = []

    def each(self):
        for number in range(6):
            with pytest.raises(RuntimeError, match="nobody calls here"):
                cm.caller()
            file = cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC))
            self.files.append(cm.keep(file) if number % 2 else file)
            yield file

    async def each_awaited(self):
        for file in self.each():
            yield file

    def check(self):
        until(lambda: all(file.closed for file in self.files[::2]))
        for file in self.files[1::2]:
            assert is_open(file)
            file.close()


def test_a_generator_that_is_an_argument_is_in_no_call():
    """It may keep what it gives."""
    gives = Gives()
    with cm.Entrypoint("taking") as entrypoint:
        assert entrypoint.manage(TakingServer()).cast(Taking).take(gives.each()) == 6
        gives.check()


@each_loop
def test_an_awaited_generator_that_is_an_argument_is_in_no_call(loop):
    gives = Gives()

    async def main():
        async with aio.Entrypoint("taking") as entrypoint:
            assert await entrypoint.manage(AsyncTakingServer()).cast(AsyncTaking).take(gives.each_awaited()) == 6

    run(loop, main)
    gives.check()
