"""An entrypoint's block: which tasks and loops may leave it, what ends it, and where it says that it cannot end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from loops import AwaitedWork, Work, Worker, each_loop, in_thread, run, waits
from patience import PATIENCE
from telling import rounds

SUPPORT = Path(__file__).parent / "support"
in_asyncio = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@in_asyncio
def test_a_block_is_left_in_another_task_than_it_was_entered_in(loop):
    """As a fixture of tests is, by two tasks that have ended meanwhile."""
    entrypoint = aio.Entrypoint("fixture")
    capability = entrypoint.manage(Worker())

    async def main():
        await asyncio.create_task(entrypoint.__aenter__())
        assert await capability.cast(AwaitedWork).double(21) == 42
        await asyncio.create_task(entrypoint.__aexit__(None, None, None))
        with pytest.raises(cm.Disconnected):
            await capability.cast(AwaitedWork).double(21)

    run(loop, main)


@in_asyncio
def test_two_blocks_are_left_in_any_order(loop):
    """Nothing of one is within the other."""
    one, other = aio.Entrypoint("one"), aio.Entrypoint("other")

    async def main():
        capability = other.manage(Worker())
        await one.__aenter__()
        await other.__aenter__()
        await one.__aexit__(None, None, None)
        assert await capability.cast(AwaitedWork).double(21) == 42
        await other.__aexit__(None, None, None)

    run(loop, main)


@in_asyncio
def test_a_block_that_is_left_before_its_task_has_begun_ends(loop):
    """Cancelled at once, so that the task never begins."""
    entrypoint = aio.Entrypoint("brief")

    async def main():
        await entrypoint.__aenter__()
        with contextlib.suppress(asyncio.CancelledError):
            await entrypoint.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)
        assert not entrypoint._service.served

    run(loop, main)


@each_loop
def test_what_ends_the_service_ends_the_block(loop, quiet_log):
    """Its task is cancelled, as by a task group's failure, and what was raised is raised where it is left."""
    entrypoint = aio.Entrypoint("failed")

    class Raising(Worker):
        async def double(self, value):
            raise KeyboardInterrupt

    async def block():
        async with entrypoint:
            work = entrypoint.manage(Raising()).cast(Work)
            with contextlib.suppress(cm.RemoteError):
                await in_thread(work.double, 1)
            await anyio.sleep_forever()

    async def main():
        with pytest.raises(KeyboardInterrupt):
            await block()
        # Nothing is left of that cancellation.
        await rounds()
        if loop != "trio":
            assert not asyncio.current_task().cancelling()

    run(loop, main)


@in_asyncio
def test_a_cancelled_block_waits_for_a_method_that_goes_on_and_tells_it_again_when_it_is_cancelled_again(loop):
    """So who is in a hurry can end a method that has swallowed it once."""
    entrypoint = aio.Entrypoint("twice")

    class Stubborn(Worker):
        async def double(self, value):
            for _ in range(2):
                try:
                    self.saw("runs")
                    await anyio.sleep_forever()
                except asyncio.CancelledError:
                    self.saw("cancelled")
            return value

    async def block():
        async with entrypoint:
            await anyio.sleep_forever()

    async def main():
        worker = Stubborn()
        capability = entrypoint.manage(worker)
        entered = asyncio.create_task(block())
        calling = asyncio.create_task(capability.cast(AwaitedWork).double(1))
        await worker.until(lambda: worker.seen == ["runs"])
        entered.cancel()
        await worker.until(lambda: worker.seen == ["runs", "cancelled", "runs"])
        assert not entered.done()
        entered.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entered
        assert worker.seen == ["runs", "cancelled"] * 2
        with pytest.raises(cm.Disconnected):
            await calling

    run(loop, main)


@pytest.mark.parametrize("how", ["aclose", "leave", "call"])
def test_an_entrypoint_of_a_loop_that_does_not_run_says_so(how):
    """At once: nothing there ever goes on.  It ends when that loop runs again."""
    entrypoint = aio.Entrypoint("stopped")
    work = entrypoint.manage(Worker()).cast(AwaitedWork)
    ends = {"aclose": entrypoint.aclose, "leave": lambda: entrypoint.__aexit__(None, None, None)}
    loop = asyncio.new_event_loop()
    loop.run_until_complete(entrypoint.__aenter__())

    async def main():
        with pytest.raises(RuntimeError, match="another event loop, which does not run"):
            await ends.get(how, lambda: work.double(1))()

    run("asyncio", main)
    loop.run_until_complete(asyncio.wait_for(entrypoint.aclose(), PATIENCE))
    # What aclose() waits for where it is told for the first time.
    loop.run_until_complete(asyncio.wait_for(entrypoint._service._over.wait(), PATIENCE))
    assert not entrypoint._service.served
    loop.close()


@each_loop
def test_an_entrypoint_is_told_to_end_in_no_event_loop(loop, fork):
    """By close(), in whichever thread: calls that run are answered, and others find it gone."""
    entrypoint, worker = aio.Entrypoint("told"), Worker()
    capability = entrypoint.manage(worker)
    child = fork(lambda: waits(capability))

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(entrypoint.serve_forever)
            await worker.began()
            await in_thread(entrypoint.close)
            assert entrypoint.closed
            entrypoint.close()
            with pytest.raises(cm.Disconnected):
                await in_thread(capability.cast(Work).double, 1)
            worker.go = True
            assert await in_thread(child.result) == "x"

    run(loop, main)
    assert entrypoint._service.released


def test_close_lets_go_of_what_nobody_serves():
    """Without any event loop; also by contextlib.closing()."""
    with contextlib.closing(aio.Entrypoint("unserved")) as entrypoint:
        capability = entrypoint.manage(Worker())
    with pytest.raises(cm.Disconnected):
        capability.cast(Work).double(1)
    assert entrypoint._service.released


@each_loop
def test_who_serves_within_the_block_is_told_what_to_write(loop):
    async def main():
        async with aio.Entrypoint("twice") as entrypoint:
            with pytest.raises(RuntimeError, match="served already: async with does, so wait there"):
                await entrypoint.serve_forever()

    run(loop, main)


@pytest.mark.parametrize("handler", ["KeyboardInterrupt", "SystemExit"])
def test_ctrl_c_ends_serve_forever_in_trio_as_itself(handler):
    """And not in a group of errors: who awaits it catches it."""
    program = f"""
import signal, sys
import trio
from capmarshal import aio

def handle(*_):
    raise {handler}

async def main():
    entrypoint = aio.Entrypoint("forever")
    try:
        print("serves", flush=True)
        await entrypoint.serve_forever()
    except {handler}:
        print("itself")
    finally:
        entrypoint.close()

if {handler} is not KeyboardInterrupt:
    signal.signal(signal.SIGINT, handle)
trio.run(main)
"""
    with subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "serves\n"
        os.kill(child.pid, signal.SIGINT)
        assert child.communicate(timeout=PATIENCE)[0] == "itself\n"


AT_EXIT = f"""
import asyncio, sys
sys.path.insert(0, {str(SUPPORT)!r})
from capmarshal import aio
from loops import AwaitedWork, Worker

loop = asyncio.new_event_loop()
entrypoint = aio.Entrypoint("left")

async def enter():
    await entrypoint.__aenter__()
    await entrypoint.manage(Worker()).cast(AwaitedWork).double(1)

loop.run_until_complete(enter())
print("left")
"""


def test_an_interpreter_ends_whose_loop_was_left_with_an_entrypoint():
    """Nothing fails in a finalizer, whatever is gone by then."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", AT_EXIT], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "left\n")
    assert "Exception ignored" not in ended.stderr
