"""What has ended keeps nothing, though the garbage collector never comes: it counts objects, and not what they hold."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import signal
import threading
import time
from collections import Counter

import anyio
import pytest

import by_hand
import capmarshal as cm
import child_program
from capmarshal import aio, testing
from capmarshal._descriptors import reaper
from capmarshal._kernel.weakly import weakly
from capmarshal._testing import leaks
from loops import AwaitedWork, Work, Worker, each_loop, in_thread, run
from patience import PATIENCE
from telling import rounds

# What holds descriptors or memory, by where its class is.
_PLACES = ("_server.", "_async_server.", "_client.", "_capabilities.", "_child.", "_descriptors.private")
# What stays: of the process, or of what was ever declared.
_STAYS = {"Space", "State", "Event", "Resource", "Reference", "Here"}
# Seconds: reached only where something is kept.
_MOMENT = 5.0


def _alive():
    """How many objects there are of each class of the package's that holds something."""
    found = Counter()
    for one in gc.get_objects():
        module, _, name = type(one).__module__.partition("capmarshal.")[2], None, type(one).__name__
        if module.startswith(_PLACES) and name.strip("_") not in _STAYS:
            found[f"{module}.{name}"] += 1
    return found


class _Before:
    """What there is before something begins; the collector is off from here on."""

    def __init__(self):
        assert reaper.wait(PATIENCE)
        gc.collect()
        gc.disable()
        self._descriptors, self._alive = testing.open_descriptors(), _alive()

    def left(self):
        """What is there besides, in words."""
        lines = leaks.differences(self._descriptors, testing.open_descriptors())
        # What the first time has left for a moment may be closed by now.
        lines = [line for line in lines if not line.startswith("closed")]
        return lines + [f"kept: {count} {name}" for name, count in sorted((_alive() - self._alive).items())]


@pytest.fixture
def before():
    """Makes a note of what there is."""
    yield _Before
    gc.enable()


def _left_soon(before, of=""):
    """What is left when threads that are about to end have, of such classes: nobody says when one has let go."""
    assert reaper.wait(PATIENCE)
    deadline = time.monotonic() + _MOMENT
    while (left := [line for line in before.left() if line.endswith(of)]) and time.monotonic() < deadline:
        time.sleep(0.002)  # a poll
    return left


class _Waits(Worker):
    """Whose timers are those of nobody: asyncio keeps the context of one that is cancelled until it would have rung."""

    async def wait(self, how):
        self.running += 1
        self.tell()
        try:
            await anyio.Event().wait()
        finally:
            self.running -= 1
            self.tell()


async def _twice(once, before):
    """The first time makes what stays."""
    await once()
    await rounds()
    noted = before()
    await once()
    await rounds()
    assert not _left_soon(noted)


async def _calls_itself(_entrypoint, _worker, capability, _fork):
    assert await capability.cast(AwaitedWork).double(2) == 4


async def _is_called(_entrypoint, _worker, capability, fork):
    child = fork(lambda: capability.cast(Work).double(2))
    assert await in_thread(child.result) == 4
    # An idle thread refers to what it has run last.
    await in_thread(int)


async def _gives_up(_entrypoint, worker, capability, _fork):
    async def gives_up(scope):
        await worker.began()
        scope.cancel()

    # Not by a task that is cancelled itself: anyio keeps the frames of what it was doing.
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(gives_up, scope)
            await capability.cast(AwaitedWork).wait("x")
    await worker.until(lambda: not worker.running)


async def _is_late(_entrypoint, _worker, capability, _fork):
    with cm.timeout(0.01), pytest.raises(cm.CallTimeout):
        await capability.cast(AwaitedWork).wait("x")


async def _fails(_entrypoint, worker, capability, _fork):
    async def fails(value):
        raise ValueError(value)

    worker.double = fails
    with pytest.raises(cm.RemoteError):
        await capability.cast(AwaitedWork).double(2)


async def _sends(_entrypoint, _worker, capability, _fork):
    with cm.Descriptor.dup(0) as file:
        for back in await capability.cast(AwaitedWork).echo([file]):
            back.close()


async def _goes(_entrypoint, worker, capability, _fork):
    with by_hand.knock(capability) as near:
        near.send(by_hand.call(capability, b"wait", b"\x91\xa1x"))
        await worker.began()


async def _is_granted(entrypoint, worker, _capability, _fork):
    kept, revoked, given_up = (entrypoint.grant(worker, label=label) for label in ("kept", "revoked", "given up"))
    for one in (kept, revoked, given_up):
        assert await one.cast(AwaitedWork).double(2) == 4
    entrypoint.revoke(revoked)


async def _nothing(_entrypoint, _worker, _capability, _fork):
    await anyio.lowlevel.checkpoint()


CLIENTS = [_nothing, _is_granted, _calls_itself, _is_called, _gives_up, _is_late, _fails, _sends, _goes]


@each_loop
@pytest.mark.parametrize("does", CLIENTS)
def test_an_entrypoint_of_a_loop(loop, does, fork, before, quiet_log):
    """Whatever was called, and however that has ended."""

    async def once():
        worker = _Waits()
        async with aio.Entrypoint("once") as entrypoint:
            await does(entrypoint, worker, entrypoint.manage(worker), fork)

    run(loop, _twice, once, before)


@each_loop
@pytest.mark.parametrize("how", ["is closed", "is cancelled"])
def test_an_entrypoint_of_a_loop_with_calls_in_progress(loop, how, before, quiet_log):
    """They are told to end, and who has called finds it gone."""

    async def calls(capability, gone):
        with contextlib.suppress(cm.Disconnected, anyio.get_cancelled_exc_class()):
            await capability.cast(AwaitedWork).wait("x")
        gone.append(True)

    async def once():
        worker, gone = _Waits(), []
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                async with aio.Entrypoint("once", close_timeout=0) as entrypoint:
                    capability = entrypoint.manage(worker)
                    group.start_soon(calls, capability, gone)
                    await worker.began()
                    if how == "is cancelled":
                        scope.cancel()
        assert gone == [True]

    run(loop, _twice, once, before)


@each_loop
def test_an_entrypoint_of_a_loop_that_a_signal_ends(loop, before, quiet_log):
    """What its handler raises is raised where the block is left, and keeps what it has gone through no longer."""

    def leave(*_):
        raise SystemExit(3)

    async def once():
        worker = _Waits()

        async def signalled(_value):
            signal.raise_signal(signal.SIGUSR1)

        worker.double = signalled
        try:
            async with aio.Entrypoint("once") as entrypoint:
                await entrypoint.manage(worker).cast(AwaitedWork).double(2)
        except SystemExit as error:
            assert error.code == 3
        except cm.Disconnected:
            raise AssertionError("its block is cut off") from None

    former = signal.signal(signal.SIGUSR1, leave)
    try:
        run(loop, _twice, once, before)
    finally:
        signal.signal(signal.SIGUSR1, former)


@each_loop
def test_what_a_method_has_begun_keeps_nothing_of_its_server(loop, before):
    """A context of its call's, as asyncio keeps one of a timer that was cancelled until that would have rung."""
    contexts = []

    async def main():
        worker = _Waits()

        async def copies(_value):
            contexts.append(contextvars.copy_context())
            return 0

        worker.double = copies
        noted = before()
        async with aio.Entrypoint("once") as entrypoint:
            await entrypoint.manage(worker).cast(AwaitedWork).double(2)
        del entrypoint
        await rounds()
        for kept in ("Server", "Calls", "Concurrency", "Door", "Service", "Driver"):
            assert not _left_soon(noted, kept)
        assert len(contexts) == 1

    run(loop, main)


@each_loop
@pytest.mark.parametrize("where", ["aclose", "close", "never served"])
def test_an_entrypoint_of_a_loop_that_is_closed(loop, where, before):
    """Served by a task of the program's, or by nobody."""

    async def once():
        entrypoint, worker = aio.Entrypoint("once"), Worker()
        capability = entrypoint.manage(worker)
        async with anyio.create_task_group() as group:
            if where != "never served":
                group.start_soon(entrypoint.serve_forever)
                assert await capability.cast(AwaitedWork).double(2) == 4
            if where == "aclose":
                await entrypoint.aclose()
            else:
                entrypoint.close()

    run(loop, _twice, once, before)


@each_loop
def test_an_entrypoint_of_a_loop_that_listens(loop, place, before):
    """To who has connected, and has called."""

    async def once():
        worker = Worker()

        async def asked(_caller):
            return worker

        async with aio.Entrypoint("once") as entrypoint:
            entrypoint.manage(worker)
            entrypoint.listen(place, for_client=asked)
            capability = await aio.connect(place)
            assert await capability.cast(AwaitedWork).double(2) == 4

    run(loop, _twice, once, before)


@each_loop
def test_a_child_of_a_loop(loop, before):
    """Its pipes, and what tells of its end."""

    async def once():
        worker = Worker()
        async with aio.Entrypoint("once") as entrypoint:
            command = child_program.python("cm.parent(); print(sys.stdin.read())")
            pipes = {"stdin": -1, "stdout": -1}
            async with await aio.spawn(command, parent=entrypoint.manage(worker), **pipes) as process:
                await process.stdin.send(b"x")
                await process.stdin.aclose()
                assert b"".join([part async for part in process.stdout]) == b"x\n"

    run(loop, _twice, once, before)


def _blocking_nothing(_capability, _fork):
    pass


def _blocking_calls(capability, _fork):
    assert capability.cast(_Blocking).double(2) == 4


def _blocking_is_called(capability, fork):
    assert fork(lambda: capability.cast(_Blocking).double(2)).result() == 4


def _blocking_late(capability, _fork):
    with cm.timeout(0.01), pytest.raises(cm.CallTimeout):
        capability.cast(_Blocking).wait("x")


def _blocking_fails(capability, _fork):
    with pytest.raises(cm.RemoteError):
        capability.cast(_Blocking).blob(b"")


def _blocking_sends(capability, _fork):
    with cm.Descriptor.dup(0) as file:
        for back in capability.cast(_Blocking).echo([file]):
            back.close()


def _blocking_spawns(capability, _fork):
    with cm.spawn(child_program.python("cm.parent()"), parent=capability) as process:
        assert process.wait() == 0


class _Blocking(cm.Interface):
    double = Work.double
    blob = Work.blob
    echo = Work.echo
    wait = Work.wait


class _BlockingWorker(_Blocking):
    def __init__(self):
        self.began, self.go = threading.Event(), threading.Event()

    def double(self, value):
        return 2 * value

    def blob(self, data):
        raise ValueError(data)

    def echo(self, files):
        return files

    def wait(self, how):
        self.began.set()
        assert self.go.wait(PATIENCE)
        return how


@pytest.mark.parametrize(
    "does",
    [
        _blocking_nothing,
        _blocking_calls,
        _blocking_is_called,
        _blocking_late,
        _blocking_fails,
        _blocking_sends,
        _blocking_spawns,
    ],
)
@pytest.mark.parametrize("how", ["in a thread", "never served", "forgotten"])
def test_an_entrypoint_of_a_thread(does, how, fork, before, quiet_log):
    """Whatever was called, and however that has ended."""

    def once():
        worker = _BlockingWorker()
        entrypoint = cm.Entrypoint("once")
        if how == "never served":
            entrypoint.close()
        elif how == "forgotten":
            entrypoint.__enter__()
            does(entrypoint.manage(worker), fork)
            worker.go.set()
            with pytest.warns(ResourceWarning, match="unclosed"):
                del entrypoint
        else:
            with entrypoint:
                does(entrypoint.manage(worker), fork)
                worker.go.set()

    once()
    noted = before()
    once()
    assert not _left_soon(noted)


def test_an_entrypoint_of_a_thread_that_has_left_a_call_behind(fork, before, quiet_log):
    """When that has ended; and whose call it was, has found it gone before."""

    def calls(capability):
        with pytest.raises(cm.Disconnected):
            capability.cast(_Blocking).wait("x")

    def once():
        worker = _BlockingWorker()
        with cm.Entrypoint("once", close_timeout=0) as entrypoint:
            capability = entrypoint.manage(worker)
            child = fork(lambda: calls(capability))
            assert worker.began.wait(PATIENCE)
        child.result()
        worker.go.set()

    once()
    noted = before()
    once()
    assert not _left_soon(noted)


@each_loop
def test_who_holds_a_capability_keeps_nothing_of_its_server(loop, before):
    """Of one that was closed: its door, which is what a capability is."""

    async def once(held):
        async with aio.Entrypoint("once") as entrypoint:
            held.append(entrypoint.manage(_Waits()))
            assert await held[0].cast(AwaitedWork).double(2) == 4

    async def main():
        await once([])
        await rounds()
        noted, held = before(), []
        await once(held)
        await rounds()
        for kept in ("Server", "Calls", "Concurrency", "Service", "Driver", "Dispatcher", "Objects"):
            assert not _left_soon(noted, kept)
        with pytest.raises(cm.Disconnected):
            await held[0].cast(AwaitedWork).double(2)

    run(loop, main)


def test_a_method_is_called_for_as_long_as_its_object_is_kept_by_others():
    """And keeps it neither: what stands for it returns something else then."""

    class Whole:
        def number(self, of, *, times=1):
            return of * times

    whole = Whole()
    number = weakly(whole.number, -1)
    assert number(2, times=3) == 6
    del whole
    assert number(2, times=3) == -1
