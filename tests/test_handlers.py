"""Methods that are awaited: what cancels one, and what then becomes of its call; what is whose in its context."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import logging
import math
import os
import re
import select
import signal
import socket

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from capmarshal._async_server.awaited_call import AwaitedCall
from capmarshal._protocol import wire
from loops import AwaitedWork, Work, Worker, each_loop, in_thread, run
from patience import BEGINS, PATIENCE
from telling import ROUNDS, rounds, served_until

# Payload of a call of wait("x").
WAIT = b"\x91\xa1x"


@each_loop
def test_a_client_that_goes_cancels_its_call(loop):
    """Its handler sees it without a further call."""

    async def main():
        worker = Worker()
        async with aio.Entrypoint("awaited") as entrypoint:
            capability = entrypoint.manage(worker)
            with by_hand.knock(capability) as near:
                near.send(by_hand.call(capability, b"wait", WAIT))
                await worker.began()
            await served_until(entrypoint, lambda: not entrypoint._service._server.concurrency.handlers)
            assert worker.seen == [("began", "x"), ("cancelled", "x")]

    run(loop, main)


@each_loop
def test_a_client_that_is_killed_cancels_its_call(loop, fork):
    """Whatever it was waiting in."""
    entrypoint, worker = aio.Entrypoint("awaited"), Worker()
    capability = entrypoint.manage(worker)
    child = fork(lambda: capability.cast(Work).wait("x"))

    async def main():
        async with entrypoint:
            await worker.began()
            os.kill(child.pid, signal.SIGKILL)
            await worker.until(lambda: ("cancelled", "x") in worker.seen)

    run(loop, main)


@each_loop
def test_another_call_on_the_channel_cancels_the_first_and_ends_it(loop):
    """As a blocking client makes it after Ctrl-C, or its deadline: it sees that the second was never read."""

    async def main():
        worker = Worker()
        async with aio.Entrypoint("awaited") as entrypoint:
            capability = entrypoint.manage(worker)
            with by_hand.knock(capability) as near:
                near.send(by_hand.call(capability, b"wait", WAIT, id=1))
                await worker.began()
                near.send(by_hand.call(capability, b"double", b"\x91\x15", id=2))
                with pytest.raises(ConnectionResetError):
                    await in_thread(by_hand.answer, near)
                await worker.until(lambda: worker.seen == [("began", "x"), ("cancelled", "x")])

    run(loop, main)


@each_loop
def test_a_call_that_is_not_read_is_told_also_where_the_channel_is_kept(loop, memfd):
    """An earlier answer's descriptors lie unread, so that it is not closed, and the kernel says nothing."""

    async def main():
        worker = Worker()
        async with aio.Entrypoint("awaited") as entrypoint:
            capability = entrypoint.manage(worker)
            with by_hand.knock(capability) as near:
                entries = [(0, bytes(16))]
                record = by_hand.call(capability, b"echo", b"\x91\x91\x00", entries, 1, id=1)
                by_hand.send(near, record, [memfd.fileno()])
                assert await in_thread(select.select, [near], [], [], PATIENCE) == ([near], [], [])
                near.send(by_hand.call(capability, b"wait", WAIT, id=2))
                await worker.began()
                near.send(by_hand.call(capability, b"double", b"\x91\x15", id=3))
                await worker.until(lambda: ("cancelled", "x") in worker.seen)
                record, files = await in_thread(by_hand.answer, near)
                assert (record.id, len(files)) == (1, 1)
                for file in files:
                    os.close(file)
                record, _ = await in_thread(by_hand.answer, near)
                assert isinstance(record, wire.Gone)
                assert near.recv(1) == b""

    run(loop, main)


@each_loop
def test_a_method_that_swallows_its_cancellation_is_counted_until_it_ends_and_its_answer_dropped(loop, memfd, writer):
    """Its channel ends at once, and its descriptors are closed when it has ended."""

    async def main():
        worker = Worker()

        async def hold(file):
            await worker.wait("swallow")
            return 7

        worker.hold = hold
        async with aio.Entrypoint("awaited") as entrypoint:
            capability = entrypoint.manage(worker)
            with by_hand.knock(capability) as near:
                entries = [(0, bytes(16))]
                record = by_hand.call(capability, b"hold", b"\x91\x00", entries, 1, id=1)
                by_hand.send(near, record, [writer.fileno()])
                await worker.began()
                near.send(by_hand.call(capability, b"double", b"\x91\x15", id=2))
                with pytest.raises(ConnectionResetError):
                    await in_thread(by_hand.answer, near)
                handlers = entrypoint._service._server.concurrency.handlers
                assert len(handlers) == 1
                worker.go = True
                await served_until(entrypoint, lambda: not handlers)

    run(loop, main)


@each_loop
@pytest.mark.parametrize("colour", ["blocking", "awaited"])
def test_a_client_whose_call_was_late_does_not_wait_for_its_method(loop, fork, colour):
    """Its next call goes to a new channel, and is answered while the first does not end."""
    entrypoint, worker = aio.Entrypoint("late"), Worker()
    capability = entrypoint.manage(worker)

    async def blob(data):
        await worker.wait("swallow")
        return data

    worker.blob = blob

    def blocking():
        work = capability.cast(Work)
        work.double(1)
        with cm.timeout(0.5), pytest.raises(cm.CallTimeout):
            work.blob(b"")
        with cm.timeout(PATIENCE / 2):
            return work.double(21)

    async def awaited():
        work = capability.cast(AwaitedWork)
        await work.double(1)
        with cm.timeout(0.5), pytest.raises(cm.CallTimeout):
            await work.blob(b"")
        with cm.timeout(PATIENCE / 2):
            return await work.double(21)

    child = fork(blocking if colour == "blocking" else lambda: anyio.run(awaited))

    async def main():
        async with entrypoint:
            try:
                assert await in_thread(child.result) == 42
                assert worker.running
            finally:
                worker.go = True

    run(loop, main)


@each_loop
def test_a_method_that_raises_a_cancellation_itself_is_answered(loop, fork, quiet_log):
    """Whatever its class: nobody has cancelled it, and others go on."""
    entrypoint, worker = aio.Entrypoint("awaited"), Worker()

    async def blob(data):
        # One that belongs to a scope that is over: trio makes none that could be raised otherwise.
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as error:
                kept = error
        raise kept

    worker.blob = blob
    capability = entrypoint.manage(worker)

    def calls():
        work = capability.cast(Work)
        with cm.timeout(PATIENCE), pytest.raises(cm.RemoteError, match="Cancelled"):
            work.blob(b"")
        return work.double(21)

    child = fork(calls)

    async def main():
        async with entrypoint:
            assert await in_thread(child.result) == 42

    run(loop, main)


@each_loop
def test_a_deadline_is_seen_and_cancels(loop, fork):
    """From the caller, whatever is in force at the server; who asks the event loop sees it in trio's scopes."""
    entrypoint, worker = aio.Entrypoint("awaited"), Worker()

    async def double(value):
        left = anyio.current_effective_deadline() - anyio.current_time()
        told = abs(left - cm.remaining()) < 1 if loop == "trio" else left == math.inf
        return int(told) * int(cm.remaining())

    worker.double = double
    capability = entrypoint.manage(worker)

    def calls():
        work = capability.cast(Work)
        with cm.timeout(PATIENCE - 10):
            seen = work.double(1)
        with cm.timeout(BEGINS), pytest.raises(cm.CallTimeout):
            work.wait("late")
        return seen

    child = fork(calls)

    async def main():
        async with entrypoint:
            assert 0 < await in_thread(child.result) <= PATIENCE - 10
            await worker.until(lambda: ("cancelled", "late") in worker.seen)
            assert cm.remaining() == math.inf

    run(loop, main)
    assert ("ended", "late") not in worker.seen


@each_loop
def test_what_two_methods_keep_at_a_time_is_each_ones_own(loop, fork, files, identity):
    """And is open when both calls have ended."""
    entrypoint, worker = aio.Entrypoint("awaited"), Worker()
    capability = entrypoint.manage(worker)
    numbers = files(2)

    def call(number):
        return capability.cast(Work).hold(cm.Descriptor.dup_of(number))

    children = [fork(lambda number=number: call(number)) for number in numbers]

    async def main():
        async with entrypoint:
            await worker.began(2)
            worker.go = True
            for child, number in zip(children, numbers, strict=True):
                assert await in_thread(child.result) == os.fstat(number).st_ino
        assert {identity(file) for file in worker.held} == {identity(number) for number in numbers}
        for file in worker.held:
            file.close()
        with pytest.raises(RuntimeError, match="only a call has descriptors"):
            cm.keep(worker.held)

    run(loop, main)


@each_loop
def test_a_deadline_goes_on_to_who_is_called_in_turn(loop, fork):
    """Two hops away it is the first caller's still, and its end cancels what runs there."""
    far, near = aio.Entrypoint("far"), aio.Entrypoint("near")
    last, first = Worker(), Worker()
    beyond = far.manage(last).cast(AwaitedWork)

    async def blob(data):
        return str(cm.remaining()).encode() + data

    async def wait(how):
        return await beyond.wait(how)

    last.blob = blob
    first.blob, first.wait = beyond.blob, wait
    capability = near.manage(first)

    def calls():
        work = capability.cast(Work)
        with cm.timeout(20):
            left = float(work.blob(b""))
        with cm.timeout(BEGINS), pytest.raises(cm.CallTimeout):
            work.wait("far")
        return left

    child = fork(calls)

    async def main():
        async with far, near:
            assert 0 < await in_thread(child.result) <= 20
            await last.until(lambda: ("cancelled", "far") in last.seen)

    run(loop, main)


@each_loop
def test_calls_back_to_back_are_answered_before_anything_is_awaited(loop):
    """Whatever many turns are taken at once: no answer waits for what comes next."""

    async def main():
        async with aio.Entrypoint("busy") as entrypoint:
            capability = entrypoint.manage(Worker())
            with contextlib.ExitStack() as stack:
                channels = [stack.enter_context(by_hand.knock(capability)) for _ in range(17)]
                for _ in range(3):
                    for near in channels:
                        near.send(by_hand.call(capability, b"double", b"\x91\x15"))
                    for near in channels:
                        record, _ = await in_thread(by_hand.answer, near)
                        assert bytes(record.payload) == b"\x2a"

    run(loop, main)


@each_loop
@pytest.mark.parametrize("way", ["closes", "shuts", "half", "speaks"])
def test_a_client_that_keeps_a_copy_of_the_channel_has_no_loop_spin(loop, way):
    """It closes its own end, shuts it, or says something: turns are counted."""

    async def main():
        worker = Worker()
        async with aio.Entrypoint("spinning") as entrypoint:
            capability = entrypoint.manage(worker)
            near, far = by_hand.knock(capability, keep_far=True)
            with near, far:
                near.send(by_hand.call(capability, b"wait", b"\x91\xa7swallow"))
                await worker.began()
                if way == "closes":
                    near.close()
                elif way == "shuts":
                    near.shutdown(socket.SHUT_RDWR)
                elif way == "half":
                    near.shutdown(socket.SHUT_WR)
                else:
                    near.send(b"x")
                    near.send(b"y")
                await worker.until(lambda: ("cancelled", "swallow") in worker.seen)
                server = entrypoint._service._server
                turns, take = [], server._turns.take
                server._turns.take = lambda: (turns.append(1), take())
                await rounds()
                worker.go = True
                await served_until(entrypoint, lambda: not len(server._channels))
                # Some are of what is closed meanwhile.
                assert len(turns) <= ROUNDS // 2
                del server._turns.take

    run(loop, main)


@each_loop
def test_long_calls_and_a_thousand_descriptors_go_both_ways(loop, fork):
    """In parts, as from a thread; and one that is given up in the middle leaves nothing."""
    entrypoint, worker = aio.Entrypoint("long", max_bytes=65 << 20), Worker()
    capability = entrypoint.manage(worker)

    def calls():
        work = capability.cast(Work)
        data = bytes(1 << 20) * 64
        with cm.timeout(PATIENCE):
            assert work.blob(data) == data
            with cm.Dataspace.from_buffer(b"x") as file:
                files = work.echo([cm.Descriptor.dup_of(file.fileno()) for _ in range(1000)])
                for one in files:
                    one.close()
            with cm.timeout(0.01), contextlib.suppress(cm.CallTimeout):
                work.blob(data)
            return len(files), work.double(21)

    child = fork(calls)

    async def main():
        async with entrypoint:
            assert await in_thread(child.result) == (1000, 42)

    run(loop, main)


@each_loop
def test_calls_are_logged(loop, fork, caplog):
    """Those that run, those that are refused, and how each has ended."""
    caplog.set_level(logging.DEBUG, "capmarshal")
    entrypoint, worker = aio.Entrypoint("logged"), Worker()
    capability = entrypoint.manage(worker)

    def calls():
        with by_hand.knock(capability) as near:
            near.send(by_hand.call(capability, b"nothing"))
            by_hand.answer(near)
        return capability.cast(Work).double(21)

    child = fork(calls)

    async def main():
        async with entrypoint:
            assert await in_thread(child.result) == 42

    run(loop, main)
    lines = [record.getMessage() for record in caplog.records if "ran " in record.getMessage()]
    assert "ran b'nothing'" in lines[0]
    assert "ran AwaitedWork.double: ok in" in lines[1]
    assert len(lines) == 2


@each_loop
@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled", "has a deadline", "copies its context"])
def test_nothing_of_a_call_is_left_when_it_has_ended(loop, fork, quiet_log, how):
    """Though the garbage collector never comes.  Who copies its context has that, and nothing of the call."""
    entrypoint, worker = aio.Entrypoint("left"), Worker()
    capability, contexts = entrypoint.manage(worker), []

    async def blob(data):
        await anyio.lowlevel.checkpoint()
        if how == "raises":
            raise ValueError(len(data))
        if how == "is cancelled":
            await anyio.Event().wait()
        if how == "copies its context":
            contexts.append(contextvars.copy_context())
        return b""

    worker.blob = blob

    def calls():
        work, error = capability.cast(Work), contextlib.nullcontext()
        if how == "raises":
            error = pytest.raises(cm.RemoteError)
        elif how == "is cancelled":
            error = pytest.raises(cm.CallTimeout)
        with cm.timeout(0.2 if how == "is cancelled" else PATIENCE if how == "has a deadline" else None), error:
            work.blob(bytes(1 << 16))

    def left():
        return [one for one in gc.get_objects() if type(one) is AwaitedCall]

    async def main():
        async with entrypoint:
            gc.collect()
            gc.disable()
            try:
                for child in [fork(calls) for _ in range(3)]:
                    await in_thread(child.result)
                if contexts:
                    assert all(len(call._payload) == 0 and call.kept is None for call in left())
                else:
                    await served_until(entrypoint, lambda: not entrypoint._service._server.concurrency.handlers)
                    # For their tasks to end.
                    await rounds()
                    assert not left()
            finally:
                gc.enable()

    run(loop, main)


@each_loop
@pytest.mark.parametrize("how", ["cancelled", "scope", "timeout", "end"])
def test_a_call_that_is_cancelled_is_logged_so_at_both_sides(loop, how, caplog):
    """And one that has run out of time as that: a scope's deadline cancels the client, and is the server's, too."""
    caplog.set_level(logging.DEBUG, "capmarshal")
    entrypoint, worker = aio.Entrypoint("logged", close_timeout=0), Worker()
    proxy = entrypoint.manage(worker).cast(AwaitedWork)

    async def call(scope, seconds=None):
        with scope, cm.timeout(seconds), contextlib.suppress(cm.CallTimeout, cm.Disconnected):
            await proxy.wait(how)

    async def main():
        async with anyio.create_task_group() as group, entrypoint:
            while how in ("scope", "timeout") and not worker.seen:
                await call(
                    anyio.move_on_after(0.05 if how == "scope" else math.inf), 0.05 if how == "timeout" else None
                )
            scope = anyio.CancelScope()
            if how in ("cancelled", "end"):
                group.start_soon(call, scope)
                await worker.began()
            if how == "cancelled":
                scope.cancel()
            if how != "end":
                await worker.until(lambda: not worker.running)

    run(loop, main)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    seen = {re.search(r"(called|ran) .*?: (\w+) in \d+\.", line).groups() for line in lines}
    assert (
        seen
        == {
            "cancelled": {("called", "cancelled"), ("ran", "cancelled")},
            "scope": {("called", "cancelled"), ("ran", "CallTimeout")},
            "timeout": {("called", "CallTimeout"), ("ran", "CallTimeout")},
            "end": {("called", "Disconnected"), ("ran", "cancelled")},
        }[how]
    )
