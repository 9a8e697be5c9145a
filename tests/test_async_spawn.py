"""``aio.spawn``: a child that is given one capability, started in an event loop, on each of them."""

import ast
import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import anyio
import pytest

import capmarshal as cm
import child_program
from capmarshal import aio
from loops import each_loop, in_thread, run
from refusing import refuse


async def _ended(command, parent, **options):
    """A child's status, when it has ended."""
    async with await aio.spawn(command, parent=parent, **options) as process:
        return await process.wait()


@each_loop
@pytest.mark.parametrize("as_stdin", [False, True])
def test_a_child_calls_through_its_parent_capability(loop, as_stdin):
    """As one that cm.spawn() has started, also where the environment is another."""
    with child_program.registry() as (target, capability):
        command = child_program.python("assert tell('hello') == 1; assert cm.parent().label == 'registry'")
        options = {"parent_as_stdin": as_stdin, "env": {"ONLY": "this"}}
        assert run(loop, lambda: _ended(command, capability, **options)) == 0
        assert target.told == ["hello"]


@each_loop
def test_a_child_has_its_standard_streams_and_what_waits_for_it_and_nothing_else(loop):
    """In uvloop, too, which by itself hands down whatever is inheritable."""
    program = "print(sorted(descriptors()))"

    async def child(capability, passed):
        command = child_program.python(program)
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "pass_fds": passed}
        async with await aio.spawn(command, parent=capability, **options) as process:
            printed = b"".join([part async for part in process.stdout])
            assert await process.wait() == 0
        return ast.literal_eval(printed.decode())

    with child_program.registry() as (_, capability), open(os.devnull, "rb") as null, open(os.devnull, "rb") as other:
        os.set_inheritable(other.fileno(), True)
        assert len(run(loop, child, capability, ())) == len(["stdin", "stdout", "stderr", "door"])
        assert null.fileno() in run(loop, child, capability, [null.fileno()])


@each_loop
def test_standard_streams_are_the_parents_unless_something_else_is_said(loop):
    """As of subprocess.Popen, and not of anyio: a pipe that nobody reads holds up who writes to it."""

    async def child(capability):
        async with await aio.spawn([sys.executable, "-c", ""], parent=capability) as process:
            assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
            return await process.wait()

    with child_program.registry() as (_, capability):
        assert run(loop, child, capability) == 0


@each_loop
def test_a_string_is_the_name_of_a_program_and_for_no_shell(loop, tmp_path):
    """As for cm.spawn(): anyio would give it to one."""
    program = tmp_path / "a program; exit 3"
    program.write_text("#!/bin/sh\nexit 5\n")
    program.chmod(0o700)
    with child_program.registry() as (_, capability):
        for name in (str(program), program):
            assert run(loop, _ended, name, capability) == 5


@each_loop
def test_a_limit_of_descriptors_is_the_childs_hard_one(loop):
    """Which it cannot raise again; arguments are what they were."""
    program = """
        import resource
        tell(f"{resource.getrlimit(resource.RLIMIT_NOFILE)} {sys.argv[1:]}")
        tell(os.environ["ONE"])
    """
    arguments = ["two words", "$ONE", "", "*"]
    with child_program.registry() as (target, capability):
        command = child_program.python(program, *arguments)
        options = {"descriptor_limit": 32, "env": {"ONE": "1"}}
        assert run(loop, lambda: _ended(command, capability, **options)) == 0
        assert target.told == [f"(32, 32) {arguments}", "1"]


@each_loop
def test_what_cannot_be_started_leaves_nothing(loop):
    """Neither a child nor a socket: both are counted around each test."""
    with child_program.registry() as (_, capability):
        for arguments, options, error in [
            (["/nowhere/at/all"], {}, FileNotFoundError),
            (["true"], {"descriptor_limit": 3}, ValueError),
            (["true"], {"descriptor_limit": "3"}, TypeError),
            (["true"], {"stdin": subprocess.PIPE, "parent_as_stdin": True}, ValueError),
            (["true"], {"close_fds": False}, ValueError),
            (["true"], {"text": True}, TypeError),
        ]:
            with pytest.raises(error):
                run(loop, lambda a=arguments, o=options: _ended(a, capability, **o))
        with pytest.raises(TypeError, match="parent must be a Capability"):
            run(loop, _ended, ["true"], child_program.RegistryServer())
        capability.close()
        with pytest.raises(cm.Closed):
            run(loop, _ended, ["true"], capability)


@each_loop
def test_a_spawn_that_is_cancelled_starts_nothing(loop):
    """One that was not has started a process: leaving its block awaits its end, and kills it if that is cancelled."""

    async def cancelled(capability):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await aio.spawn(["sleep", "1000"], parent=capability)
        with anyio.CancelScope() as scope:
            async with await aio.spawn(["sleep", "1000"], parent=capability) as process:
                scope.cancel()
                await process.wait()
        return process.returncode

    with child_program.registry() as (_, capability):
        assert run(loop, cancelled, capability) == -signal.SIGKILL


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_block_that_asyncio_itself_cancels_does_not_wait_for_its_process(loop):
    """Its cancellation is heard once, within the block: not again by what waits at the end of it."""

    async def cancelled(capability):
        started = asyncio.Event()

        async def block():
            async with await aio.spawn(["sleep", "1000"], parent=capability) as process:
                started.process = process
                started.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await started.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return started.process.returncode

    with child_program.registry() as (_, capability):
        assert run(loop, cancelled, capability) == -signal.SIGKILL


@each_loop
def test_a_block_that_an_error_leaves_waits_for_its_process(loop):
    async def failed(capability):
        with pytest.raises(ZeroDivisionError):
            async with await aio.spawn(["true"], parent=capability) as process:
                raise ZeroDivisionError
        return process.returncode

    with child_program.registry() as (_, capability):
        assert run(loop, failed, capability) == 0


@each_loop
def test_several_tasks_await_one_process(loop):
    """Each is told its status, and one that is cancelled meanwhile does not keep the others from it."""

    async def waits(capability):
        statuses = []

        async def status(process):
            statuses.append(await process.wait())

        async with await aio.spawn(["cat"], parent=capability, stdin=subprocess.PIPE) as process:
            async with anyio.create_task_group() as others, anyio.create_task_group() as group:
                for _ in range(3):
                    others.start_soon(status, process)
                    group.start_soon(status, process)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
                await process.stdin.aclose()
            assert await process.wait() == process.returncode == 0
        return statuses

    with child_program.registry() as (_, capability):
        assert run(loop, waits, capability) == [0, 0, 0]


@each_loop
def test_pipes_are_awaited_both_ways(loop):
    """More than fits into them; what a closed one gives is anyio's own error."""
    much = bytes(range(256)) * 4096

    async def through(capability):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        async with await aio.spawn(["cat"], parent=capability, **pipes) as process:
            received = bytearray()

            async def receive():
                async for part in process.stdout:
                    received.extend(part)

            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await process.stdin.send(much)
                await process.stdin.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await process.stdin.send(b"more")
            with pytest.raises(anyio.EndOfStream):
                await process.stdout.receive()
            assert process.stderr is None
        async with await aio.spawn(["true"], parent=capability, stdin=subprocess.PIPE) as process:
            assert await process.wait() == 0
            with pytest.raises(anyio.BrokenResourceError):
                await process.stdin.send(b"to nobody")
        return bytes(received)

    with child_program.registry() as (_, capability):
        assert run(loop, through, capability) == much


@each_loop
def test_a_process_is_sent_signals(loop):
    """Also one that has ended."""

    async def signals(capability):
        ends = []
        for send in ("terminate", "kill"):
            async with await aio.spawn(["sleep", "1000"], parent=capability) as process:
                assert (process.returncode, os.getpgid(process.pid)) == (None, os.getpgid(0))
                assert repr(process) == f"<Process {process.pid}>"
                getattr(process, send)()
                ends.append(await process.wait())
                process.send_signal(signal.SIGTERM)
        return ends

    with child_program.registry() as (_, capability):
        assert run(loop, signals, capability) == [-signal.SIGTERM, -signal.SIGKILL]


@each_loop
def test_a_process_whose_end_is_seen_and_not_awaited_has_no_descriptor(loop, open_descriptors):
    """Its status says it as well."""

    async def main():
        with child_program.registry() as (_, capability):
            before = open_descriptors()
            process = await aio.spawn(child_program.python(""), parent=capability)
            # It has ended, and waits to be asked for its status.
            await in_thread(os.waitid, os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert process.returncode == 0
            return before, open_descriptors()

    before, after = run(loop, main)
    assert before == after


@each_loop
def test_where_there_is_no_descriptor_of_a_process_its_end_is_noticed_all_the_same(loop, fork):
    """A filter may refuse pidfd_open(2)."""

    def child():
        refuse(["pidfd_open"])
        with child_program.registry() as (_, capability):
            return run(loop, _ended, ["true"], capability)

    assert fork(child).result() == 0
