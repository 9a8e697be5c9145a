"""How many calls run beside others, whose, and what becomes of those that wait (csrc/cm_turn.h)."""

from __future__ import annotations

import contextlib
import os
import resource

import anyio

import by_hand
import capmarshal as cm
from capmarshal import aio
from loops import Work, Worker, each_loop, in_thread, run
from patience import PATIENCE


class Marked(Worker):
    """Notes in which order calls begin; each waits for a file of its own name in ``gone``."""

    def __init__(self):
        super().__init__()
        self.gone = set()

    async def wait(self, how):
        self.running += 1
        self.most = max(self.most, self.running)
        self.seen.append(how)
        try:
            await self.until(lambda: self.go or how in self.gone)
        finally:
            self.running -= 1
        return how


def _calls(capability, name, count):
    """A client that makes so many calls at a time, by hand; what it was answered, in which order."""
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(by_hand.knock(capability)) for _ in range(count)]
        for number, near in enumerate(channels):
            payload = f"{name}{number:03}".encode()
            near.send(by_hand.call(capability, b"wait", b"\x91" + bytes([0xA0 + len(payload)]) + payload))
        return [bytes(by_hand.answer(near)[0].payload) for near in channels]


@each_loop
def test_no_more_calls_run_than_may_and_all_are_answered(loop, fork):
    """What is above is not read, and its client is not kept waiting when others have ended."""
    entrypoint, worker = aio.Entrypoint("few", concurrency=3), Marked()
    capability = entrypoint.manage(worker)
    children = [fork(lambda name=name: _calls(capability, name, 4)) for name in "ab"]

    async def main():
        async with entrypoint:
            await worker.until(lambda: worker.running == 3)
            worker.go = True
            for name, child in zip("ab", children, strict=True):
                answers = await in_thread(child.result)
                assert answers == [b"\xa4" + f"{name}{number:03}".encode() for number in range(4)]

    run(loop, main)
    assert worker.most == 3
    assert len(worker.seen) == 8


@each_loop
def test_a_process_with_as_many_calls_as_it_may_keeps_nobody_out(loop, fork):
    """Though none of its own ends: it leaves an eighth to others."""
    entrypoint, worker = aio.Entrypoint("fair", concurrency=100), Marked()
    capability = entrypoint.manage(worker)
    hog = fork(lambda: _calls(capability, "h", 100))

    async def main():
        async with entrypoint:
            await worker.until(lambda: worker.running == 88)
            other = fork(lambda: capability.cast(Work).double(21))
            with cm.timeout(PATIENCE):
                assert await in_thread(other.result) == 42
            assert worker.running == 88
            worker.go = True
            assert len(await in_thread(hog.result)) == 100

    run(loop, main)
    assert worker.most == 88


@each_loop
def test_who_waits_is_taken_in_by_turns_of_the_processes(loop, fork):
    """One that has many waiting has one begin, and then it is the other's turn."""
    entrypoint, worker = aio.Entrypoint("turns", concurrency=1), Marked()
    capability = entrypoint.manage(worker)
    first = fork(lambda: _calls(capability, "first", 1))

    async def main():
        async with entrypoint:
            await worker.until(lambda: worker.running)
            server, children = entrypoint._service._server, []
            for count, name in ((6, "many"), (2, "few")):
                before = len(server._channels)
                children.append(fork(lambda name=name, count=count: _calls(capability, name, count)))
                await worker.until(lambda before=before, count=count: _aside(server) == before - 1 + count)
            worker.go = True
            for child in (first, *children):
                await in_thread(child.result)

    run(loop, main)
    assert [how.rstrip("0123456789") for how in worker.seen[:5]] == ["first", "many", "few", "many", "few"]
    assert worker.most == 1


def _aside(server):
    """How many channels wait until another call may begin."""
    slots = server._turn.ring.slots
    return sum(slots[channel.slot].place == 3 for channel in server._channels.all())


@each_loop
def test_a_call_that_waits_goes_with_its_client_and_costs_nothing(loop, fork, memfd, open_descriptors):
    """Nor is one whose client has given it up, and says something else, begun for nothing."""
    entrypoint, worker = aio.Entrypoint("gone", concurrency=1), Marked()
    capability = entrypoint.manage(worker)
    ready, tell = os.pipe()
    go, wait = os.pipe()

    def client():
        running = by_hand.knock(capability)
        running.send(by_hand.call(capability, b"wait", b"\x91\xa5first"))
        os.read(go, 1)
        waiting = by_hand.knock(capability)
        record = by_hand.call(capability, b"hold", b"\x91\x00", [(0, bytes(16))], 1)
        by_hand.send(waiting, record, [memfd.fileno()])
        os.write(tell, b".")
        os.read(go, 1)
        waiting.close()
        os.write(tell, b".")
        os.read(go, 1)
        changed = by_hand.knock(capability)
        changed.send(by_hand.call(capability, b"wait", b"\x91\xa6second", id=1))
        changed.send(by_hand.call(capability, b"double", b"\x91\x15", id=2))
        os.write(tell, b".")
        with running:
            return by_hand.answer(changed)[0].id, bytes(by_hand.answer(running)[0].payload)

    child = fork(client)

    async def main():
        async with entrypoint:
            server = entrypoint._service._server
            await worker.until(lambda: worker.running)
            before = len(open_descriptors())
            os.write(wait, b".")
            assert await in_thread(os.read, ready, 1)
            await worker.until(lambda: _aside(server) == 1)
            # The channel alone: what was sent with the call is in flight.
            assert len(open_descriptors()) == before + 1
            os.write(wait, b".")
            assert await in_thread(os.read, ready, 1)
            await worker.until(lambda: len(server._channels) == 1)
            os.write(wait, b".")
            assert await in_thread(os.read, ready, 1)
            await worker.until(lambda: _aside(server) == 1)
            worker.go = True
            assert await in_thread(child.result) == (2, b"\xa5first")

    run(loop, main)
    for number in (ready, tell, go, wait):
        os.close(number)
    assert "second" not in worker.seen
    assert not worker.held


@each_loop
def test_a_call_of_the_own_process_always_begins(loop):
    """The method that makes it would wait for itself."""
    entrypoint, worker = aio.Entrypoint("self", concurrency=1), Marked()
    capability = entrypoint.manage(worker)

    async def blob(data):
        return await in_thread(capability.cast(Work).blob, data[1:]) if data else b"end"

    worker.blob = blob

    async def main():
        async with entrypoint:
            assert await in_thread(capability.cast(Work).blob, bytes(5)) == b"end"

    run(loop, main)


@each_loop
def test_descriptors_of_calls_that_run_are_bounded_and_one_call_may_have_any_number(loop, fork, monkeypatch):
    """A process that has more of them in calls than may be begins no more until some have ended."""
    entrypoint, worker = aio.Entrypoint("hoard"), Worker()
    capability = entrypoint.manage(worker)
    # A quarter of it, and a third of that for one process.
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1200, 1200))
    may = entrypoint._service._server._channels.shares.in_calls.process

    async def echo(files):
        await worker.wait("echo")
        return []

    worker.echo = echo

    def client():
        with contextlib.ExitStack() as stack:
            channels = [stack.enter_context(by_hand.knock(capability)) for _ in range(3 + may // 30)]
            number = os.memfd_create("hoard")
            for near in channels:
                payload = b"\x91\xdc\x00\x1e" + bytes(range(30))
                record = by_hand.call(capability, b"echo", payload, [(slot, bytes(16)) for slot in range(30)], 30)
                by_hand.send(near, record, [number] * 30)
            os.close(number)
            return [by_hand.answer(near)[0].id for near in channels]

    child = fork(client)

    async def main():
        async with entrypoint:
            await worker.until(lambda: worker.running == may // 30 + 1)
            with anyio.move_on_after(0.05):
                await worker.until(lambda: worker.running > may // 30 + 1)
            assert worker.running == may // 30 + 1
            worker.go = True
            assert set(await in_thread(child.result)) == {1}

    run(loop, main)
