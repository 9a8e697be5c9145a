"""``aio.Entrypoint.listen``: what says what each client gets may be awaited."""

from __future__ import annotations

import asyncio
import gc

import anyio
import pytest
import trio
import uvloop

import capmarshal as cm
from capmarshal import aio
from loops import Work, Worker, each_loop, in_thread, run
from patience import PATIENCE


def connected(place):
    with cm.timeout(PATIENCE):
        try:
            return cm.connect(place).cast(Work).double(21)
        except (cm.Refused, cm.Disconnected) as refused:
            return str(refused)


@each_loop
def test_who_connects_gets_what_is_awaited_for_it(loop, tmp_path, fork):
    """Others are served meanwhile, and nothing is in force there that the entrypoint's own task has."""
    entrypoint, worker = aio.Entrypoint("listening"), Worker()
    given = entrypoint.manage(worker)
    seen = []

    async def for_client(caller):
        assert caller.pid == seen.pop()
        assert cm.remaining() > PATIENCE
        await in_thread(given.cast(Work).double, 1)
        return given

    async def main():
        with cm.timeout(PATIENCE):
            entrypoint.listen(tmp_path / "s", for_client=for_client)
            async with entrypoint:
                for _ in range(3):
                    child = fork(lambda: connected(tmp_path / "s"))
                    seen.append(child.pid)
                    assert await in_thread(child.result) == 42

    run(loop, main)


@each_loop
@pytest.mark.parametrize("runner", ["anyio", "its own"])
def test_a_plain_function_is_called_in_a_task_of_its_own(loop, runner, tmp_path, fork):
    """So it may use what belongs to the event loop and its tasks, as a method does; and nobody waits for long."""
    entrypoint, worker, seen = aio.Entrypoint("listening"), Worker(), []
    given = entrypoint.manage(worker)

    def for_client(_caller):
        event = anyio.Event()
        event.set()
        with anyio.move_on_after(PATIENCE):
            seen.append(anyio.current_effective_deadline() - anyio.current_time() < 2 * PATIENCE)
        seen.append(anyio.get_current_task().name)
        if loop != "trio":
            seen.append(asyncio.current_task().get_loop() is asyncio.get_running_loop())
        with pytest.raises(RuntimeError, match="in the thread of the event loop"):
            given.cast(Work).double(1)
        return given

    async def main():
        entrypoint.listen(tmp_path / "s", for_client=for_client)
        async with entrypoint:
            child = fork(lambda: connected(tmp_path / "s"))
            assert await in_thread(child.result) == 42

    if runner == "anyio":
        run(loop, main)
    elif loop == "trio":
        trio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
            runner.run(main())
    assert seen[0:2] == [True, "for_client"]
    assert seen[2:] == ([] if loop == "trio" else [True])


@each_loop
@pytest.mark.parametrize(
    ("given", "said"), [(None, "is not let in"), (ValueError, "the service failed"), (7, "the service failed")]
)
def test_who_is_not_let_in_is_told_why(loop, given, said, tmp_path, fork, quiet_log):
    """Also where what says it fails, or gives what cannot be handed over."""
    entrypoint = aio.Entrypoint("listening")

    async def for_client(_caller):
        await anyio.lowlevel.checkpoint()
        if given is ValueError:
            raise ValueError("no")
        return given

    entrypoint.listen(tmp_path / "s", for_client=for_client)
    child = fork(lambda: connected(tmp_path / "s"))

    async def main():
        async with entrypoint:
            assert said in await in_thread(child.result)

    run(loop, main)


@each_loop
def test_a_client_that_goes_is_not_asked_about_any_more(loop, tmp_path, fork):
    """And those that wait to be are bounded with what is handed over; the end of all ends them, too."""
    entrypoint, worker = aio.Entrypoint("listening"), Worker()

    async def for_client(_caller):
        await worker.wait("asked")

    entrypoint.listen(tmp_path / "s", for_client=for_client)
    child, other = (fork(lambda: connected(tmp_path / "s")) for _ in range(2))

    async def main():
        async with entrypoint:
            await worker.began(2)
            child.kill()
            await worker.until(lambda: worker.running == 1)
            assert len(entrypoint._service._server._listening._handovers) == 1
        assert not worker.running

    run(loop, main)
    other.kill()
    assert worker.seen.count(("cancelled", "asked")) == 2


def test_the_blocking_one_awaits_nothing(tmp_path):
    """And says so at once."""

    async def for_client(_caller): ...

    with cm.Entrypoint("blocking") as entrypoint, pytest.raises(TypeError, match="for_client is async"):
        entrypoint.listen(tmp_path / "s", for_client=for_client)


@each_loop
def test_who_is_asked_about_when_service_ends_finds_it_gone(loop, tmp_path, fork, caplog):
    """However it ends, and also where it goes on another time."""
    entrypoint, worker = aio.Entrypoint("listening"), Worker()

    async def for_client(_caller):
        await worker.wait("asked")

    entrypoint.listen(tmp_path / "s", for_client=for_client)
    children = [fork(lambda: connected(tmp_path / "s")) for _ in range(9)]

    async def once():
        if loop == "trio":
            async with anyio.create_task_group() as group:
                group.start_soon(entrypoint.serve_forever)
                await worker.until(lambda: worker.running == 9)
                group.cancel_scope.cancel()
        else:
            serving = asyncio.create_task(entrypoint.serve_forever())
            await worker.until(lambda: worker.running == 9)
            assert not serving.done()

    async def again():
        async with entrypoint:
            for child in children:
                assert "has ended, or hung up" in await in_thread(child.result)

    run(loop, once)
    run(loop, again)
    assert worker.running == 0
    assert caplog.records == []


@each_loop
@pytest.mark.parametrize("by", ["client", "end"])
def test_what_is_cancelled_before_it_begins_does_not_begin(loop, by, tmp_path, fork):
    """And nobody is warned of it."""
    entrypoint, begun = aio.Entrypoint("listening"), []

    async def for_client(_caller):
        if loop == "trio":
            # There it may begin, and is cancelled wherever it awaits.
            await anyio.lowlevel.checkpoint()
        begun.append(True)

    entrypoint.listen(tmp_path / "s", for_client=for_client)
    child = fork(lambda: connected(tmp_path / "s"))

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(entrypoint.serve_forever)
            while not (asking := getattr(entrypoint._service, "_asking", None)) or not asking.all:
                await anyio.lowlevel.checkpoint()
            if by == "client":
                # As where its end is noticed.
                entrypoint._service._server._listening.end_asked()
                entrypoint.close()
            elif loop != "trio":
                # As asyncio.run() does at its end.
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
            else:
                group.cancel_scope.cancel()
        assert "has ended, or hung up" in await in_thread(child.result)
        await entrypoint.aclose()

    run(loop, main)
    gc.collect()
    assert begun == []
