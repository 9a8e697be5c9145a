"""How an event loop takes a server's turns: in which context calls begin, when it comes round, and when it does not."""

from __future__ import annotations

import asyncio
import contextvars
import math
from functools import partial
from itertools import count

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from capmarshal._async_server.asyncio_driver import AsyncioDriver
from loops import LOOPS, AwaitedWork, Work, Worker, each_loop, in_thread, run, waits
from patience import PATIENCE
from telling import rounds

_mark = contextvars.ContextVar("mark", default="nobody's")


class Marked(Worker):
    """Says what it finds in its context, and leaves something there."""

    def __init__(self):
        super().__init__()
        self.found = []

    async def wait(self, how):
        self.found.append((_mark.get(), cm.remaining()))
        _mark.set(how)
        with cm.timeout(1000):
            return await super().wait(how)


@each_loop
def test_a_call_that_waited_for_another_begins_in_a_context_of_its_own(loop, fork):
    """The end of that other one has the loop come round: what was in force there is not of the call that follows."""
    entrypoint, worker = aio.Entrypoint("marked", concurrency=1), Marked()
    capability = entrypoint.manage(worker)
    children = [fork(lambda: capability.cast(Work).wait("one")) for _ in range(3)]

    async def main():
        _mark.set("main's")
        worker.go = True
        async with entrypoint:
            for child in children:
                assert await in_thread(child.result) == "one"

    run(loop, main)
    assert worker.most == 1
    assert worker.found == [("main's", math.inf)] * 3


@each_loop
def test_nothing_spins_while_a_call_runs(loop, fork):
    """Where nothing has come, no turn is taken."""
    entrypoint, worker = aio.Entrypoint("quiet"), Worker()
    capability = entrypoint.manage(worker)
    child = fork(lambda: waits(capability))

    async def main():
        async with entrypoint:
            await worker.began()
            server, taken = entrypoint._service._server, count()
            take_some = server.take_some

            def counted(most):
                next(taken)
                return take_some(most)

            server.take_some = counted
            await rounds()
            assert next(taken) <= 3
            worker.go = True
            assert await in_thread(child.result) == "x"

    run(loop, main)


def test_one_entrypoint_is_served_in_event_loops_of_several_kinds_in_turn(fork):
    """The loop that is gone is told of nothing any more: calls that wait for others go on in each."""
    entrypoint, worker = aio.Entrypoint("in turn", concurrency=1), Worker()
    capability = entrypoint.manage(worker)
    worker.go = True

    async def main():
        children = [fork(lambda: waits(capability)) for _ in range(3)]
        async with anyio.create_task_group() as group:
            group.start_soon(entrypoint.serve_forever)
            for child in children:
                assert await in_thread(child.result) == "x"
            group.cancel_scope.cancel()

    for loop in (*LOOPS, *reversed(LOOPS)):
        run(loop, main)
    anyio.run(entrypoint.aclose)


def test_a_call_whose_task_asyncio_cancels_before_it_has_begun_keeps_nobody_waiting():
    """It never runs, and what serves ends all the same."""
    worker, begun = Worker(), asyncio.Event()

    def cancel(loop, coroutine, **options):
        task = asyncio.Task(coroutine, loop=loop, **options)
        if coroutine.__qualname__.startswith("AwaitedCall."):
            task.cancel()
            begun.set()
        return task

    async def main():
        async with aio.Entrypoint("never begun", close_timeout=0.01) as entrypoint:
            asyncio.get_running_loop().set_task_factory(cancel)
            calling = asyncio.ensure_future(entrypoint.manage(worker).cast(AwaitedWork).wait("x"))
            await begun.wait()
            asyncio.get_running_loop().set_task_factory(None)
        with pytest.raises(cm.Disconnected):
            await calling

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert worker.seen == []


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_is_begun_to_end_others_is_waited_for(cancelled):
    """However often that begins more, and whether who waits is cancelled or not."""
    server = Worker()
    server.come_round_by = lambda _: None
    ended = []

    async def main():
        driver = AsyncioDriver(server, None)

        async def end(left):
            await asyncio.sleep(0)
            if left:
                driver.run_aside(partial(end, left - 1), "end")
            ended.append(left)

        async def serve():
            driver.run_aside(partial(end, 9), "end")
            if cancelled:
                await asyncio.Event().wait()

        serving = asyncio.ensure_future(driver.serve(serve, "serving"))
        while not ended:
            await asyncio.sleep(0)
        if cancelled:
            serving.cancel()
        await asyncio.wait((serving,))
        assert ended == [*range(9, -1, -1)]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
