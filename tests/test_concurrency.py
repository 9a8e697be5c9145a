"""How many calls run beside others, whose, and what becomes of those that wait (csrc/cm_turn.h)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
from collections.abc import AsyncIterator, Iterator

import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from capmarshal._server import journal as _journal
from capmarshal._server import waiting_calls as _waiting_calls
from loops import Work, Worker, each_loop, in_thread, run
from ordinary_user import become_ordinary
from patience import PATIENCE
from telling import served_until, settled

# Any process may have all places.
EVERYTHING = cm.Limits(process_share=1, user_share=1)


def _begun(worker):
    """What calls were begun of, in that order."""
    return [how for what, how in worker.seen if what == "began"]


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
    entrypoint, worker = aio.Entrypoint("few", concurrency=3, limits=EVERYTHING), Worker()
    capability = entrypoint.manage(worker)
    children = [fork(lambda name=name: _calls(capability, name, 4)) for name in "ab"]

    async def main():
        async with entrypoint:
            await worker.began(3)
            worker.go = True
            for name, child in zip("ab", children, strict=True):
                answers = await in_thread(child.result)
                assert answers == [b"\xa4" + f"{name}{number:03}".encode() for number in range(4)]

    run(loop, main)
    assert worker.most == 3
    assert len(_begun(worker)) == 8


@each_loop
def test_a_process_alone_has_the_places_that_nobody_else_needs(loop, fork):
    """More than its share, but for a quarter of what its user may have, and of all; one place is anybody's."""
    for concurrency, most in ((1, 1), (2, 1), (4, 2), (10, 6), (100, 57)):
        entrypoint, worker = aio.Entrypoint("alone", concurrency=concurrency), Worker()
        capability = entrypoint.manage(worker)
        alone = fork(lambda capability=capability, count=concurrency: _calls(capability, "a", count + 2))

        async def main(entrypoint=entrypoint, worker=worker, alone=alone, most=most, count=concurrency + 2):
            async with entrypoint:
                server = entrypoint._service._server
                await worker.began(most)
                await served_until(entrypoint, lambda: _aside(server) == count - most)
                worker.go = True
                assert len(await in_thread(alone.result)) == count

        run(loop, main)
        assert worker.most == most


@each_loop
def test_a_process_with_as_many_calls_as_it_may_keeps_nobody_out(loop, fork):
    """Though none of its own ends: another process of its user, and another user, begin at once."""
    entrypoint, worker = aio.Entrypoint("fair", concurrency=100), Worker()
    capability = entrypoint.manage(worker)
    hog = fork(lambda: _calls(capability, "h", 100))

    def double():
        return capability.cast(Work).double(21)

    def of_another_user():
        become_ordinary()
        return double()

    async def main():
        async with entrypoint:
            await worker.began(57)
            for first in (double, *([of_another_user] if os.getuid() == 0 else [])):
                other = fork(first)
                with cm.timeout(PATIENCE):
                    assert await in_thread(other.result) == 42
            assert worker.running == 57
            worker.go = True
            assert len(await in_thread(hog.result)) == 100

    run(loop, main)
    assert worker.most == 57


class OneByOne(Worker):
    """Its calls end one by one: those whose names are in ``ended``."""

    def __init__(self):
        super().__init__()
        self.ended = frozenset()

    async def wait(self, how):
        self.running += 1
        self.most = max(self.most, self.running)
        self.saw(("began", how))
        await self.until(lambda: self.go or how in self.ended)
        self.running -= 1
        return how

    def let_go(self, how):
        """Has one of them end."""
        self.ended |= {how}


@each_loop
def test_what_a_process_has_beyond_its_share_goes_to_who_has_less(loop, fork):
    """As its calls end, those of the other begin, though it has waited for longer itself."""
    entrypoint, worker = aio.Entrypoint("back", concurrency=12, limits=cm.Limits(user_share=1)), OneByOne()
    capability = entrypoint.manage(worker)
    hog = fork(lambda: _calls(capability, "h", 15))

    async def main():
        async with entrypoint:
            server = entrypoint._service._server
            # Four of twelve are its share, and three are kept free.
            await served_until(entrypoint, lambda: worker.running == 9 and _aside(server) == 6)
            other = fork(lambda: _calls(capability, "o", 6))
            await served_until(entrypoint, lambda: worker.running == 12 and _aside(server) == 9)
            worker.let_go("h000")
            await worker.until(lambda: len(_begun(worker)) == 13)
            worker.go = True
            assert [len(await in_thread(child.result)) for child in (hog, other)] == [15, 6]

    run(loop, main)
    assert [how[0] for how in _begun(worker)[:13]] == ["h"] * 9 + ["o"] * 4
    assert worker.most == 12


@each_loop
def test_processes_of_one_user_keep_no_other_user_out(loop, fork):
    """However many they are, and though none of their calls ends; nor do they get more than that later."""
    entrypoint, worker = aio.Entrypoint("users", concurrency=8), Worker()
    capability = entrypoint.manage(worker)
    hogs = [fork(lambda name=name: _calls(capability, name, 4)) for name in "abcd"]

    def double():
        become_ordinary()
        return capability.cast(Work).double(21)

    async def main():
        async with entrypoint:
            server = entrypoint._service._server
            await worker.began(6)
            await served_until(entrypoint, lambda: _aside(server) == 10)
            if os.getuid() == 0:
                with cm.timeout(PATIENCE):
                    assert await in_thread(fork(double).result) == 42
            worker.go = True
            for hog in hogs:
                assert len(await in_thread(hog.result)) == 4

    run(loop, main)
    assert worker.most == 6
    assert len(_begun(worker)) == 16


@each_loop
def test_limits_say_what_part_of_the_places_one_process_may_have(loop, fork):
    """At least one, and all of them if they say so; more than its part as long as a quarter stays free."""
    for concurrency, share, most in ((8, 1, 8), (8, 0.5, 6), (8, 0.9, 7), (8, 0.01, 6), (2, 0.01, 1)):
        limits = cm.Limits(process_share=share, user_share=1)
        entrypoint, worker = aio.Entrypoint("shares", concurrency=concurrency, limits=limits), Worker()
        capability = entrypoint.manage(worker)
        hog = fork(lambda capability=capability: _calls(capability, "h", 10))

        async def main(entrypoint=entrypoint, worker=worker, hog=hog, most=most):
            async with entrypoint:
                server = entrypoint._service._server
                await worker.began(most)
                await served_until(entrypoint, lambda: _aside(server) == 10 - most)
                worker.go = True
                assert len(await in_thread(hog.result)) == 10

        run(loop, main)
        assert worker.most == most


@each_loop
@pytest.mark.parametrize(
    "bounds", [{"concurrency": 1}, {"concurrency": 8, "limits": cm.Limits(user_share=1 / 8)}], ids=["all", "user"]
)
def test_who_waits_is_taken_in_by_turns_of_the_processes(loop, bounds, fork):
    """One that has many waiting has one begin, and then it is the other's turn; also where all are one user's."""
    entrypoint, worker = aio.Entrypoint("turns", **bounds), Worker()
    capability = entrypoint.manage(worker)
    first = fork(lambda: _calls(capability, "first", 1))

    async def main():
        async with entrypoint:
            await worker.began()
            server, children = entrypoint._service._server, []
            for count, name in ((6, "many"), (2, "few")):
                before = len(server._channels)
                children.append(fork(lambda name=name, count=count: _calls(capability, name, count)))
                await served_until(entrypoint, lambda before=before, count=count: _aside(server) == before - 1 + count)
            worker.go = True
            for child in (first, *children):
                await in_thread(child.result)

    run(loop, main)
    assert [how.rstrip("0123456789") for how in _begun(worker)[:5]] == ["first", "many", "few", "many", "few"]
    assert worker.most == 1


def _aside(server):
    """How many channels wait until another call may begin."""
    slots = server._turn.ring.slots
    return sum(slots[channel.slot].place == 3 for channel in server._channels.all())


@each_loop
def test_a_call_that_waits_goes_with_its_client_and_costs_nothing(loop, fork, memfd, open_descriptors):
    """Nor is one whose client has given it up, and says something else, begun for nothing."""
    entrypoint, worker = aio.Entrypoint("gone", concurrency=1), Worker()
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
            try:
                by_hand.answer(changed)
            except ConnectionResetError:
                return bytes(by_hand.answer(running)[0].payload)

    child = fork(client)

    async def main():
        async with entrypoint:
            server = entrypoint._service._server
            await worker.began()
            before = len(open_descriptors())
            os.write(wait, b".")
            assert await in_thread(os.read, ready, 1)
            await served_until(entrypoint, lambda: _aside(server) == 1)
            # The channel alone: what was sent with the call is in flight.
            assert len(open_descriptors()) == before + 1
            os.write(wait, b".")
            assert await in_thread(os.read, ready, 1)
            await served_until(entrypoint, lambda: len(server._channels) == 1)
            os.write(wait, b".")
            assert await in_thread(os.read, ready, 1)
            await served_until(entrypoint, lambda: _aside(server) == 1)
            worker.go = True
            assert await in_thread(child.result) == b"\xa5first"

    run(loop, main)
    for number in (ready, tell, go, wait):
        os.close(number)
    assert "second" not in _begun(worker)
    assert not worker.held


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_call_for_which_no_task_can_be_made_is_not_counted(loop, fork, memfd, open_descriptors, caplog):
    """Its client finds its channel gone, what came with it is closed, and others have its place."""
    entrypoint, worker = aio.Entrypoint("no task", concurrency=1), Worker()
    capability = entrypoint.manage(worker)

    def client():
        try:
            capability.cast(Work).hold(cm.Descriptor.dup_of(memfd.fileno()))
        except cm.Disconnected as gone:
            return gone.ran

    def refuse(loop, coroutine, **options):
        if coroutine.__qualname__.startswith("AwaitedCall."):
            raise MemoryError
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main():
        async with entrypoint:
            asyncio.get_running_loop().set_task_factory(refuse)
            child = fork(client)
            assert await in_thread(child.result) == "maybe"
            asyncio.get_running_loop().set_task_factory(None)
            assert not entrypoint._service._server.concurrency.handlers
            assert await in_thread(fork(lambda: capability.cast(Work).double(21)).result) == 42

    run(loop, main)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    # Its traceback keeps the entrypoint.
    caplog.clear()


@each_loop
def test_a_call_of_the_own_process_always_begins(loop):
    """The method that makes it would wait for itself."""
    entrypoint, worker = aio.Entrypoint("self", concurrency=1), Worker()
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
            await worker.began(may // 30 + 1)
            await served_until(entrypoint, lambda: _aside(entrypoint._service._server) == 2)
            assert worker.running == may // 30 + 1
            worker.go = True
            assert set(await in_thread(child.result)) == {1}

    run(loop, main)


@each_loop
@pytest.mark.parametrize("what", ["descriptors", "bytes"])
def test_what_calls_of_one_users_processes_bring_is_bounded_however_many_they_are(
    loop, fork, monkeypatch, what, caplog
):
    """Each has one call: what comes when they have their share is not read, and the log says so; another user's is."""
    monkeypatch.setattr(_waiting_calls, "_LONG", 20_000_000)
    limits = cm.Limits(begun_bytes=40_000)
    entrypoint, worker = aio.Entrypoint("users", limits=limits, max_bytes=10_000), Worker()
    capability = entrypoint.manage(worker)
    # A quarter of it, and three quarters of that for one user.
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1200, 1200))

    async def bring(brought):
        await worker.wait("bring")
        return brought[:0]

    worker.echo = worker.blob = bring

    def client():
        work = capability.cast(Work)
        if what == "bytes":
            return work.blob(bytes(8_000))
        number = os.memfd_create("many")
        return len(work.echo([cm.Descriptor.dup_of(number) for _ in range(60)]))

    def double():
        become_ordinary()
        return capability.cast(Work).double(21)

    children = [fork(client) for _ in range(7)]

    async def main():
        async with entrypoint:
            await worker.began(4)
            await served_until(entrypoint, lambda: _aside(entrypoint._service._server) == 3)
            if os.getuid() == 0:
                assert await in_thread(fork(double).result) == 42
            await served_until(entrypoint, lambda: "a call waits: those that run have brought all" in caplog.text)
            assert worker.most == 4
            worker.go = True
            for child in children:
                assert not await in_thread(child.result)

    run(loop, main)


# What the log says of calls that wait, each with what bounds them, and how many run then.
WAITING = {
    "process": (
        {"concurrency": 4},
        2,
        "{peer}: {until}: 2 of this process run, all that it may have of concurrency=4 for now (Limits.process_share)",
    ),
    "user": (
        {"concurrency": 4, "limits": cm.Limits(user_share=1 / 4)},
        1,
        "{peer}: {until}: 1 of this user's processes run, all that one user may have of concurrency=4 "
        "(Limits.user_share)",
    ),
    "all": ({"concurrency": 1}, 1, "{until}: 1 run, as many as may (concurrency)"),
}


@each_loop
@pytest.mark.parametrize("why", WAITING)
def test_the_log_tells_of_a_call_that_waits_for_a_place(loop, why, fork, caplog, monkeypatch):
    """Once of each, when it has waited for a while: whose it is, and which limit says so."""
    monkeypatch.setattr(_waiting_calls, "_LONG", 20_000_000)
    monkeypatch.setattr(_journal, "_PAUSE", 0)
    options, runs, line = WAITING[why]
    entrypoint, worker = aio.Entrypoint("slow", **options), OneByOne()
    capability = entrypoint.manage(worker)
    child = fork(lambda: _calls(capability, "name", runs + 2))
    peer, until = f"process {child.pid} (user {os.getuid()})", "a call waits until another ends"
    expected = f"slow: {line.format(peer=peer, until=until)}"

    async def main():
        async with entrypoint:
            server = entrypoint._service._server
            await served_until(
                entrypoint,
                lambda: worker.running == runs and _aside(server) == 2 and caplog.messages == [expected],
            )
            worker.let_go("name000")
            await served_until(entrypoint, lambda: caplog.messages == [expected] * 2)
            worker.go = True
            assert len(await in_thread(child.result)) == runs + 2
            await served_until(entrypoint, lambda: not server._waiting_calls._seen)

    run(loop, main)
    assert caplog.messages == [expected] * 2


# Streams: who waits for an item has no place.


class News(cm.Interface):
    """What a blocking client sees."""

    @cm.method
    def follow(self) -> Iterator[int]: ...

    @cm.method
    def double(self, value: int) -> int: ...


class AwaitedNews(cm.Interface):
    @cm.method
    def follow(self) -> AsyncIterator[int]: ...

    double = cm.awaitable(News.double)


class NewsServer(Worker, AwaitedNews):
    """Has one item, and a second one when it is told to."""

    async def follow(self):
        yield 1
        await self.until(lambda: self.go, 4 * PATIENCE)
        yield 2


def _follow(capability, count):
    """A client that follows so many streams at a time; all that it is told."""

    def follow():
        return list(capability.cast(News).follow())

    return [thread.outcome() for thread in [by_hand.Concurrent(follow) for _ in range(count)]]


@each_loop
@pytest.mark.parametrize("concurrency", [1, 2])
def test_who_waits_for_items_keeps_nobody_out(loop, concurrency, fork):
    """However many they are, in whichever process; nor is one of them kept from being answered."""
    entrypoint, worker = aio.Entrypoint("news", concurrency=concurrency), NewsServer()
    capability = entrypoint.manage(worker)
    followers = [fork(lambda: _follow(capability, 10)) for _ in range(2)]

    def double():
        return capability.cast(News).double(21)

    async def main():
        async with entrypoint:
            running = entrypoint._service._server.concurrency
            await settled(lambda: len(running.handlers) == 20 and running._load.calls == 0)
            with cm.timeout(PATIENCE):
                assert await in_thread(fork(double).result) == 42
            worker.go = True
            for follower in followers:
                assert await in_thread(follower.result) == [[1, 2]] * 10
            assert running._load.calls == 0

    run(loop, main)


@each_loop
def test_one_call_of_each_stream_waits_without_a_place(loop, fork):
    """Who waits for items of one stream by many calls has places for all but one, and no more than he may have."""
    entrypoint = aio.Entrypoint("news", concurrency=3, limits=EVERYTHING)
    worker = NewsServer()
    capability = entrypoint.manage(worker)

    def take():
        stream = capability.cast(News).follow()
        assert next(stream) == 1
        pull = stream._source.next
        return sorted(thread.outcome()[0] for thread in [by_hand.Concurrent(pull, 1) for _ in range(6)])

    taking = fork(take)

    async def main():
        async with entrypoint:
            server = entrypoint._service._server
            await settled(lambda: len(server.concurrency.handlers) == 4 and _aside(server) == 2)
            await settled(lambda: server.concurrency._load.calls == 3)
            worker.go = True
            assert await in_thread(taking.result) == [[]] * 5 + [[2]]
            assert server.concurrency._load.calls == 0

    run(loop, main)


@each_loop
def test_who_gives_up_waiting_for_an_item_gives_no_place_back_twice(loop, fork):
    """Nor does who is killed: the count is what it was."""
    entrypoint, worker = aio.Entrypoint("news", concurrency=2), NewsServer()
    capability = entrypoint.manage(worker)

    def take():
        stream = capability.cast(News).follow()
        assert next(stream) == 1
        for _ in range(3):
            with pytest.raises(cm.CallTimeout), cm.timeout(0.01):
                stream._source.next(1)
        stream._source.next(1)

    taking = fork(take)

    async def main():
        async with entrypoint:
            running = entrypoint._service._server.concurrency
            await settled(lambda: len(running.handlers) == 1 and running._load.calls == 0)
            taking.kill()
            await served_until(entrypoint, lambda: not running.handlers)
            assert running._load.calls == 0
            other = fork(lambda: capability.cast(News).double(21))
            assert await in_thread(other.result) == 42

    run(loop, main)
