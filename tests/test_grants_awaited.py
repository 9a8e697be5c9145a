"""Grants of an entrypoint of an event loop's: how they end while methods run, and who is told in which task."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import re
import select
import sys
import weakref

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from loops import in_thread
from patience import PATIENCE


class AwaitedWork(cm.Interface):
    double = cm.awaitable(by_hand.Work.double)
    block = cm.awaitable(by_hand.Work.block)


class AwaitedWorker(AwaitedWork):
    """Its block() goes on until it may end, whoever cancels it."""

    def __init__(self):
        self.cancelled = anyio.Event()
        self.ended = False

    async def double(self, value):
        return 2 * value

    async def block(self, started, go):
        os.write(started.fileno(), b".")
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()
            with anyio.CancelScope(shield=True):
                await in_thread(select.select, [go.fileno()], [], [], PATIENCE)
            self.ended = True
        return 1


@pytest.mark.parametrize("end", ["revoked", "let go"])
def test_one_more_grant_is_as_much_work_however_many_there_are(end):
    """From its beginning to its end: who has very many of them makes none slower for others."""

    async def life(entrypoint):
        told, worker = asyncio.Event(), AwaitedWorker()
        granted = entrypoint.grant(worker, unreachable=lambda _worker: told.set())
        assert await granted.cast(AwaitedWork).double(2) == 4
        if end == "revoked":
            entrypoint.revoke(worker)
            await aio.wait_gone(granted)
        else:
            del granted
            await told.wait()

    async def lines(entrypoint):
        """How many run in this thread."""
        count = 0

        def trace(_frame, event, _argument):
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        living = asyncio.create_task(life(entrypoint))
        sys.settrace(trace)
        try:
            await living
        finally:
            sys.settrace(before)
        return count

    async def program():
        async with aio.Entrypoint("many") as entrypoint:
            few = min([await lines(entrypoint) for _ in range(3)])
            held = [entrypoint.grant(AwaitedWorker()) for _ in range(300)]
            assert await held[-1].cast(AwaitedWork).double(1) == 2
            assert min([await lines(entrypoint) for _ in range(3)]) < few + 300

    asyncio.run(program())


def test_a_method_that_outlives_its_client_is_waited_for(run, fork):
    """Its object is not let go, and nobody is told, as long as it runs."""

    async def outlive():
        told, worker = [], AwaitedWorker()
        async with aio.Entrypoint("files") as entrypoint:
            root = entrypoint.manage(AwaitedWorker()).cast(AwaitedWork)
            granted = [entrypoint.grant(worker, unreachable=lambda what: told.append(what.ended))]
            with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
                child = fork(lambda: granted[0].cast(by_hand.Work).block(began, going))
                granted.clear()
                gc.collect()
                assert await in_thread(started.read, 1) == b"."
                child.kill()
                await worker.cancelled.wait()
                assert await root.double(1) == 2
                assert told == []
                go.close()
                while not told:
                    await anyio.lowlevel.checkpoint()
        assert told == [True]

    run(outlive)


# Being told that nobody can reach an object.


class Told:
    """Is told, in any of the ways that can be awaited."""

    def __init__(self):
        self.objects, self.tasks = [], []

    async def __call__(self, what, *_):
        await anyio.lowlevel.checkpoint()
        self.plainly(what)

    def plainly(self, what):
        self.tasks.append(anyio.get_current_task().name)
        self.objects.append(what)

    async def method(self, what):
        await self(what)


WAYS = {
    "async def": lambda told: told.method,
    "an object": lambda told: told,
    "a partial": lambda told: functools.partial(Told.method, told),
    "a lambda": lambda told: lambda what: told(what),
    "def": lambda told: told.plainly,
}


async def settled(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():
            gc.collect()
            await anyio.sleep(0.001)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_told_in_a_task(run, way):
    """Once, each in one of its own, whatever it is that is awaited; and the object goes."""

    async def main():
        told = Told()
        async with aio.Entrypoint("files") as entrypoint:
            workers = [AwaitedWorker() for _ in range(3)]
            granted = [entrypoint.grant(worker, unreachable=WAYS[way](told)) for worker in workers]
            assert await granted[0].cast(AwaitedWork).double(1) == 2
            granted.clear()
            await settled(lambda: len(told.objects) == 3)
            assert {id(what) for what in told.objects} == {id(worker) for worker in workers}
            assert told.tasks == ["unreachable"] * 3
            kept = [weakref.ref(worker) for worker in workers]
            workers.clear()
            told.objects.clear()
            await settled(lambda: not any(ref() for ref in kept))
        assert told.objects == []

    run(main)


def test_it_is_waited_for_when_the_entrypoint_is_left(run):
    """Calls go on meanwhile; and no other call is taken, as where a method runs."""

    async def main():
        began, go_on, ended = anyio.Event(), anyio.Event(), []

        async def told(what):
            began.set()
            await go_on.wait()
            ended.append(what)

        async with anyio.create_task_group() as group, aio.Entrypoint("files", close_timeout=PATIENCE) as entrypoint:
            root = entrypoint.manage(AwaitedWorker()).cast(AwaitedWork)
            entrypoint.grant(AwaitedWorker(), unreachable=told)
            gc.collect()
            await began.wait()
            assert await root.double(1) == 2
            entrypoint.close()

            async def let_it_go_on():
                await anyio.wait_all_tasks_blocked()
                assert not ended
                go_on.set()

            group.start_soon(let_it_go_on)
        assert len(ended) == 1

    run(main)


@pytest.mark.parametrize("how", ["left", "cancelled"])
def test_it_is_cancelled_with_the_entrypoint(run, how, caplog):
    """When its time is up, which is in the log; or at once where the block is cancelled."""

    async def main():
        began, seen = anyio.Event(), []

        async def told(_what):
            began.set()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                seen.append("cancelled")
                raise

        with anyio.CancelScope() as scope:
            async with aio.Entrypoint("files", close_timeout=0.01) as entrypoint:
                entrypoint.grant(AwaitedWorker(), label="plugin 3", unreachable=told)
                gc.collect()
                await began.wait()
                if how == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
        assert seen == ["cancelled"]

    run(main)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (how == "left")
    expected = r"files: unreachable, of <Grant 'plugin 3'>: not ended in [0-9.]+ s, and told to end: "
    assert all(re.match(expected, words) for words in messages)


def test_it_is_told_once_however_often_it_is_served(run):
    """Also where that was cut off: who was told to end knows of it."""
    entrypoint, seen = aio.Entrypoint("files"), []

    async def told(_what):
        seen.append("told")
        await anyio.sleep_forever()

    async def once():
        async with anyio.create_task_group() as group:
            group.start_soon(entrypoint.serve_forever)
            entrypoint.grant(AwaitedWorker(), unreachable=told)
            await settled(lambda: seen)
            group.cancel_scope.cancel()

    async def again():
        async with entrypoint:
            assert await entrypoint.manage(AwaitedWorker()).cast(AwaitedWork).double(1) == 2
            grants = entrypoint._service._server.grants
            assert not grants._in_force
            assert not grants.unreachable._telling

    run(once)
    run(again)
    assert seen == ["told"]


def test_what_an_awaited_one_raises_ends_nothing(run, caplog):
    """Whatever it is: it is in the log, with whose it was."""

    async def main():
        errors = [LookupError("not here"), asyncio.CancelledError(), SystemExit(3)]

        async def told(_what):
            await anyio.lowlevel.checkpoint()
            raise errors.pop()

        async with aio.Entrypoint("files") as entrypoint:
            for number in range(3):
                entrypoint.grant(AwaitedWorker(), label=f"plugin {number}", unreachable=told)
                gc.collect()
                await settled(lambda number=number: len(errors) == 2 - number)
            assert await entrypoint.manage(AwaitedWorker()).cast(AwaitedWork).double(1) == 2

    run(main)
    assert "nobody can reach <Grant 'plugin 0'> failed" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("asked", ["unreachable", "signal"])
def test_it_may_close_the_entrypoint(run, asked):
    """It does not wait for its own end, in no task of its own."""

    async def main():
        ended = []

        async def told(_what=None):
            async with anyio.create_task_group() as group:
                group.start_soon(entrypoint.aclose)
            await entrypoint.aclose()
            ended.append(True)

        entrypoint = aio.Entrypoint("files")
        if asked == "unreachable":
            entrypoint.grant(AwaitedWorker(), unreachable=told)
            gc.collect()
        else:
            sent = entrypoint.on_signal(told)
            sent.send()
        await entrypoint.serve_forever()
        assert ended == [True]

    run(main)


def test_as_many_run_as_a_client_may_hold_grants(run, fork, place):
    """Who connects over and over has no more of them run than that: each counts until it has ended."""

    async def main():
        running, go_on = [], anyio.Event()

        async def told(what):
            running.append(what)
            await go_on.wait()

        def connect():
            try:
                cm.connect(place, timeout=PATIENCE).close()
            except cm.Refused as error:
                return str(error)
            return ""

        async with aio.Entrypoint("files", limits=cm.Limits(grants=6)) as entrypoint:
            entrypoint.listen(place, for_client=lambda _: entrypoint.grant(AwaitedWorker(), unreachable=told))
            while not (refusal := await in_thread(fork(connect).result)):
                await settled(lambda: len(running) == len(entrypoint._service._server.grants._in_force))
            assert "can be reached still" in refusal
            assert 0 < len(running) <= 6
            go_on.set()
            await settled(lambda: not entrypoint._service._server.grants._in_force)
            assert not await in_thread(fork(connect).result)

    run(main)
