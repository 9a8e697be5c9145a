"""Grants of an entrypoint of an event loop's: how they end while methods run, and who is told in which task."""

from __future__ import annotations

import functools
import gc
import os
import select

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from loops import LOOPS, in_thread
from loops import run as run_in
from patience import PATIENCE


@pytest.fixture(params=LOOPS)
def run(request):
    """run(function, *arguments): what a coroutine function returns, in an event loop of each kind."""
    return functools.partial(run_in, request.param)


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
