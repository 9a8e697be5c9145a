"""How serving in an event loop ends: by leaving, closing, cancellation, errors, signals and forks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from capmarshal._async_server import serving as _serving
from loops import LOOPS, AwaitedWork, Work, Worker, each_loop, in_thread, run, waits
from patience import PATIENCE
from telling import served_until

# Where the programs of these tests find what they import.
SUPPORT = Path(by_hand.__file__).parent


@each_loop
def test_leaving_finishes_calls_and_answers_them(loop, fork):
    """Whoever comes meanwhile finds the server gone."""
    entrypoint, worker = aio.Entrypoint("left"), Worker()
    capability = entrypoint.manage(worker)
    first = fork(lambda: waits(capability, "first"))

    async def main():
        async with anyio.create_task_group() as group:
            async with entrypoint:
                await worker.began()

                async def then():
                    await served_until(entrypoint, lambda: entrypoint.closed)
                    with pytest.raises(cm.Disconnected):
                        await in_thread(capability.cast(Work).double, 1)
                    worker.go = True

                group.start_soon(then)
            assert await in_thread(first.result) == "first"

    run(loop, main)
    with pytest.raises(cm.Closed):
        entrypoint.manage(worker)


@each_loop
def test_leaving_tells_calls_to_end_that_take_too_long_and_says_so(loop, fork, caplog, monkeypatch):
    """And which goes on all the same, if one does."""
    entrypoint, worker = aio.Entrypoint("left", close_timeout=0.05), Worker()
    capability = entrypoint.manage(worker)
    children = [fork(lambda how=how: waits(capability, how)) for how in ("long", "swallow")]
    monkeypatch.setattr(caplog.handler, "filters", [lambda _: worker.tell() is None])

    async def main():
        async with anyio.create_task_group() as group:

            async def then():
                await worker.until(lambda: "not ended yet" in caplog.text)
                # Clients need not wait for it.
                assert [await in_thread(child.result) for child in children] == ["maybe", "maybe"]
                worker.go = True

            group.start_soon(then)
            async with entrypoint:
                await worker.began(2)

    run(loop, main)
    assert ("cancelled", "long") in worker.seen
    assert ("swallowed", "swallow") in worker.seen
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.partition(" in ")[0].partition(",")[0] for line in lines] == [
        "left: AwaitedWork.wait: not ended",
        "left: AwaitedWork.wait: told to end",
    ]


class Endless(AwaitedWork):
    """Serves a stream."""

    @cm.method
    def items(self) -> AsyncIterator[int]: ...


class EndlessServer(Worker, Endless):
    async def items(self):
        yield 1
        await self.wait("swallow")


@each_loop
@pytest.mark.parametrize("what", ["Endless.items, items", "on_signal", "unreachable"])
@pytest.mark.parametrize("how", ["left", "cancelled"])
def test_what_is_no_call_and_does_not_end_is_named_in_the_log(loop, what, how, caplog, monkeypatch):
    """What makes the items of a stream, and what is told something: leaving waits for them as for methods, in words."""
    entrypoint, worker = aio.Entrypoint("left", close_timeout=0.05), EndlessServer()
    monkeypatch.setattr(_serving, "_PATIENCE", 0.05)
    monkeypatch.setattr(caplog.handler, "filters", [lambda _: worker.tell() is None])

    async def told(_what=None):
        await worker.wait("swallow")

    async def main():
        kept = []

        async def then():
            await worker.until(lambda: "not ended yet" in caplog.text)
            worker.go = True

        async with anyio.create_task_group() as group:
            group.start_soon(then)
            with anyio.CancelScope() as scope:
                async with entrypoint:
                    if what == "on_signal":
                        kept.append(entrypoint.on_signal(told))
                        kept[0].send()
                    elif what == "unreachable":
                        entrypoint.grant(worker, unreachable=told)
                        gc.collect()
                    else:
                        kept.append(entrypoint.manage(worker).cast(Endless).items())
                        assert await anext(kept[0]) == 1
                    await worker.began()
                    if how == "cancelled":
                        scope.cancel()
                        await anyio.sleep_forever()

    run(loop, main)
    assert ("swallowed", "swallow") in worker.seen
    message = f"left: {what}: told to end, and not ended yet: it is waited for"
    assert [record.getMessage() for record in caplog.records].count(message) == 1


@each_loop
@pytest.mark.parametrize("how", ["error", "cancelled"])
def test_a_block_that_ends_by_an_error_is_left_as_any_other_and_a_cancelled_one_at_once(loop, how, fork):
    """What was raised comes out as it is."""
    entrypoint, worker = aio.Entrypoint("left", close_timeout=PATIENCE), Worker()
    capability = entrypoint.manage(worker)
    child = fork(lambda: waits(capability))

    async def main():
        if how == "error":
            try:
                async with entrypoint:
                    await worker.began()
                    worker.go = True
                    raise ValueError("what")
            except ValueError as error:
                assert str(error) == "what"
        else:
            with anyio.CancelScope() as scope:
                async with entrypoint:
                    await worker.began()
                    scope.cancel()
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
        assert await in_thread(child.result) == ("x" if how == "error" else "maybe")

    run(loop, main)
    assert (("ended", "x") in worker.seen) == (how == "error")


@each_loop
def test_serve_forever_serves_until_it_is_closed_and_again_after_it_was_cancelled(loop):
    """In whichever loop: it may be made in one and entered in another."""
    entrypoint, worker = aio.Entrypoint("forever"), Worker()
    capability = entrypoint.manage(worker)

    async def once(close):
        async with anyio.create_task_group() as group:
            group.start_soon(entrypoint.serve_forever)
            assert await in_thread(capability.cast(Work).double, 21) == 42
            with pytest.raises(RuntimeError, match="served already"):
                await entrypoint.serve_forever()
            if close:
                await entrypoint.aclose()
            else:
                group.cancel_scope.cancel()

    run(loop, once, False)
    run(loop, once, True)
    assert entrypoint.closed


@each_loop
def test_looking_whether_all_has_ended_leaves_nothing_behind(loop, fork):
    """However often it is looked, while calls run and when time is up: one timer does."""
    entrypoint, worker = aio.Entrypoint("looks"), Worker()
    capability = entrypoint.manage(worker)
    child = fork(lambda: waits(capability))

    async def main():
        async with entrypoint:
            await worker.began()
            server = entrypoint._service._server
            heap, server._stop_at = server._timers._heap, time.monotonic_ns() + 10**15
            # With its channel, and without.
            for _ in range(2):
                before = len(heap)
                for _ in range(20):
                    assert not server.drained(patient=True)
                assert len(heap) <= before + 2
                for channel in server._channels.all():
                    server._endings.forget(channel)
            server._stop_at = None

    run(loop, main)
    assert child.result() == "maybe"


@each_loop
def test_close_waits_for_calls_that_run_and_says_which_do(loop, fork):
    """Not from within one: then service ends when they have."""
    entrypoint, worker = aio.Entrypoint("closed"), Worker()

    async def blob(data):
        await entrypoint.aclose()
        return data

    worker.blob = blob
    capability = entrypoint.manage(worker)
    waiting = fork(lambda: waits(capability))

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(entrypoint.serve_forever)
            await worker.began()
            os.write(tell, b".")
            assert await in_thread(closing.result) == b"x"
            assert entrypoint.closed
            # The second time it does nothing.
            await entrypoint.aclose()
            worker.go = True
            assert await in_thread(waiting.result) == "x"

    ready, tell = os.pipe()
    closing = fork(lambda: capability.cast(Work).blob(b"x") if os.read(ready, 1) else None)
    run(loop, main)
    os.close(ready)
    os.close(tell)


@each_loop
def test_close_gives_up_waiting_when_time_is_up(loop, fork):
    """And names what runs; that is answered when it ends."""
    entrypoint, worker = aio.Entrypoint("closed"), Worker()
    capability = entrypoint.manage(worker)
    waiting = fork(lambda: waits(capability))

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(entrypoint.serve_forever)
            await worker.began()
            with pytest.raises(cm.CallTimeout, match=r"Work\.wait has not ended in 0\.02 s"):
                await entrypoint.aclose(0.02)
            worker.go = True
            assert await in_thread(waiting.result) == "x"

    run(loop, main)


@each_loop
def test_dissolve_waits_for_calls_of_the_object_but_for_the_one_it_is_in(loop, fork):
    """A call that comes then is refused."""
    entrypoint, worker, other = aio.Entrypoint("dissolving"), Worker(), Worker()
    capability, others = entrypoint.manage(worker), entrypoint.manage(other)

    async def blob(data):
        await entrypoint.dissolve(worker)
        return data

    worker.blob = other.blob = blob
    child = fork(lambda: waits(capability))

    async def main():
        async with entrypoint:
            await worker.began()
            with cm.timeout(0.02), pytest.raises(cm.CallTimeout, match="dissolved, but a call of the object"):
                await entrypoint.dissolve(worker)
            with pytest.raises(cm.StaleCapability):
                await in_thread(capability.cast(Work).double, 1)
            again = entrypoint.manage(worker)
            worker.go = True
            assert await in_thread(child.result) == "x"
            assert await in_thread(again.cast(Work).blob, b"own") == b"own"
            again = entrypoint.manage(worker)
            assert await in_thread(others.cast(Work).blob, b"other") == b"other"
            with pytest.raises(cm.StaleCapability):
                await in_thread(again.cast(Work).double, 1)

    run(loop, main)


class Waiting(list):
    """Who waits for the end of a call; tells of the first."""

    def __init__(self):
        super().__init__()
        self.noticed = threading.Event()

    def append(self, one):
        super().append(one)
        self.noticed.set()


@each_loop
def test_dissolve_may_be_awaited_in_the_loop_of_another_thread(loop, fork):
    """It is told of the end of a call there, and the loop that serves takes no harm."""
    entrypoint, worker = aio.Entrypoint("dissolving"), Worker()
    capability = entrypoint.manage(worker)
    child = fork(lambda: waits(capability))

    async def main():
        async with entrypoint:
            await worker.began()
            waiting = entrypoint._objects.awaited = Waiting()
            async with anyio.create_task_group() as group:
                group.start_soon(in_thread, partial(anyio.run, entrypoint.dissolve, worker, **LOOPS[loop]))
                # Until it waits.
                assert await in_thread(waiting.noticed.wait, PATIENCE)
                worker.go = True
            assert await in_thread(child.result) == "x"
            again = entrypoint.manage(worker)
            assert await in_thread(again.cast(Work).double, 21) == 42

    run(loop, main)


@each_loop
def test_ctrl_c_in_a_method_goes_to_who_runs_the_loop(loop):
    """As itself, and not in a group; its call is answered first.  All that is seen is that, and the line of the log."""
    program = f"""
import anyio, os, sys
sys.path.insert(0, {str(SUPPORT)!r})
import capmarshal as cm
from capmarshal import aio
from capmarshal._async_server import serving as _serving
from loops import Worker, Work

class Raising(Worker):
    async def double(self, value):
        raise KeyboardInterrupt

entrypoint = aio.Entrypoint("interrupted")
capability = entrypoint.manage(Raising())
if os.fork() == 0:
    try:
        capability.cast(Work).double(1)
    except cm.RemoteError as error:
        print(error.type, flush=True)
    os._exit(0)

async def main():
    async with entrypoint:
        await anyio.sleep_forever()

anyio.run(main, **{LOOPS[loop]!r})
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "KeyboardInterrupt\n"), ended.stderr
    traceback = "Traceback (most recent call last):"
    expected = [
        r"interrupted: process \d+ \(user \d+\): AwaitedWork.double raised",
        re.escape(traceback),
        "KeyboardInterrupt",
        re.escape(traceback),
        r"(asyncio\.exceptions\.CancelledError|trio\.Cancelled.*)",
        "During handling of the above exception, another exception occurred:",
        re.escape(traceback),
        "KeyboardInterrupt",
    ]
    seen = [line for line in ended.stderr.splitlines() if line.strip() and not line.startswith(" ")]
    assert len(seen) == len(expected), ended.stderr
    for line, pattern in zip(seen, expected, strict=True):
        assert re.fullmatch(pattern, line), ended.stderr


@each_loop
def test_ctrl_c_while_an_entrypoint_is_left(loop):
    """Ends the calls that are waited for, and is raised as itself: also in trio, where the task that leaves gets it."""
    program = f"""
import anyio, os, signal, sys, threading
sys.path.insert(0, {str(SUPPORT)!r})
import capmarshal as cm
from capmarshal import aio
from loops import Worker, waits
from patience import until

entrypoint, worker = aio.Entrypoint("left", close_timeout=600), Worker()
capability = entrypoint.manage(worker)
if os.fork() == 0:
    print(waits(capability, "first"), flush=True)
    os._exit(0)

def interrupt():
    until(lambda: entrypoint.closed)
    os.kill(os.getpid(), signal.SIGINT)

async def main():
    async with entrypoint:
        await worker.began()
        threading.Thread(target=interrupt).start()

anyio.run(main, **{LOOPS[loop]!r})
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "maybe\n"), ended.stderr
    assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"


@each_loop
def test_a_method_may_spawn_and_fork(loop, fork):
    """A child has nothing of the entrypoint; its parent serves on, and answers."""
    entrypoint, worker = aio.Entrypoint("forking"), Worker()
    capability = entrypoint.manage(worker)

    async def double(value):
        pid = os.fork()
        if pid == 0:
            os._exit(7 if entrypoint.closed and not Path(f"/proc/self/fd/{epoll}").exists() else 1)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status) * value

    async def blob(data):
        process = cm.spawn([sys.executable, "-P", "-c", SPAWNED], parent=entrypoint.manage(worker))
        return bytes([await in_thread(process.wait)])

    worker.double, worker.blob = double, blob
    child = fork(lambda: (capability.cast(Work).double(2), capability.cast(Work).blob(b"")))
    epoll = entrypoint._service._server.number

    async def main():
        async with entrypoint:
            worker.go = True
            assert await in_thread(child.result) == (14, b"\x03")

    run(loop, main)


SPAWNED = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import capmarshal as cm
from loops import Work
sys.exit(3 if cm.parent().cast(Work).wait("child") == "child" else 1)
"""


ABANDONED = f"""
import asyncio, os, sys
from collections.abc import AsyncIterator
from pathlib import Path
sys.path.insert(0, {str(SUPPORT)!r})
import anyio
import capmarshal as cm
from capmarshal import aio
from capmarshal._async_server import serving as _serving
from loops import Worker, Work

entrypoint = aio.Entrypoint("abandoned")
capability = entrypoint.manage(Worker())
loop = asyncio.new_event_loop()

async def enter():
    await entrypoint.__aenter__()
    await anyio.wait_all_tasks_blocked()

loop.run_until_complete(enter())
loop.close()
asyncio.run(entrypoint.aclose())
try:
    capability.cast(Work).double(1)
except cm.Disconnected as gone:
    print(gone.ran)
# anyio keeps what a loop has left, and so the entrypoint with its door.
print([link for link in Path("/proc/self/fd").iterdir() if "eventpoll" in os.path.realpath(link)])
"""


def test_an_entrypoint_whose_loop_was_closed_without_leaving_can_be_closed():
    """In another loop: nothing in that one ever goes on."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", ABANDONED], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.stdout.splitlines() == ["no", "[]"], ended.stderr


def test_what_asyncio_run_cancels_at_its_end_leaves_nothing(quiet_log):
    """Where a block was entered, and never left."""
    entrypoint = aio.Entrypoint("cut off")
    capability = entrypoint.manage(Worker())

    async def main():
        await entrypoint.__aenter__()
        assert await capability.cast(AwaitedWork).double(21) == 42

    with contextlib.suppress(RuntimeError):
        asyncio.run(main())
    asyncio.run(entrypoint.aclose())
    with cm.timeout(PATIENCE), pytest.raises(cm.Disconnected):
        capability.cast(Work).double(1)


def _many(capability, count):
    """How so many calls at a time were answered."""
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        return set(threads.map(partial(waits, capability), map(str, range(count))))


class _Changing(Worker):
    """Raises something else when it is cancelled."""

    async def wait(self, how):
        try:
            return await super().wait(how)
        except anyio.get_cancelled_exc_class():
            raise ValueError(how) from None


@each_loop
@pytest.mark.parametrize("kind", [Worker, _Changing])
def test_calls_that_the_end_of_all_cuts_off_find_the_server_gone(loop, kind, fork, caplog):
    """Each of them, whichever task is cancelled first, and whatever its method makes of that."""
    entrypoint, worker = aio.Entrypoint("cut off"), kind()
    capability = entrypoint.manage(worker)
    child = fork(lambda: _many(capability, 20))
    if kind is _Changing:
        # What it raises is logged, as ever.
        caplog.set_level(logging.CRITICAL, "capmarshal")

    async def main():
        if loop == "trio":
            async with anyio.create_task_group() as group:
                group.start_soon(entrypoint.serve_forever)
                await worker.until(lambda: worker.running == 20)
                group.cancel_scope.cancel()
        else:
            serving = asyncio.create_task(entrypoint.serve_forever())
            await worker.until(lambda: worker.running == 20)
            assert not serving.done()

    run(loop, main)
    assert child.result() == {"maybe"}
    assert not entrypoint.closed
    assert caplog.records == []
    anyio.run(entrypoint.aclose)
