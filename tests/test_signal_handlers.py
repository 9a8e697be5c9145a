"""``Entrypoint.on_signal``: what a server does when it is sent a signal, in each colour (`_server/signal_handlers`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import socket
import threading
import weakref

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper
from capmarshal._protocol.wire import SIGNAL_RECORD
from capmarshal._server.signal_handlers import SignalHandlers
from loops import LOOPS, AwaitedWork, Work, Worker, each_loop, in_thread, run
from patience import PATIENCE, until


class BlockingWorker(Work):
    """Serves what the tests call."""

    def __init__(self):
        self.during = lambda: None

    def double(self, value):
        self.during()
        return 2 * value

    def blob(self, data):
        return data

    def echo(self, files):
        return files

    def wait(self, how):
        return how

    def hold(self, file):
        return file.fileno()

    def take(self, what):
        return what


class Awaited(AwaitedWork):
    """The same, awaited."""

    def __init__(self):
        self.during = lambda: None

    async def double(self, value):
        self.during()
        return 2 * value

    async def blob(self, data):
        return data

    async def echo(self, files):
        return files

    async def wait(self, how):
        return how

    async def hold(self, file):
        return file.fileno()

    async def take(self, what):
        return what


@contextlib.contextmanager
def in_a_thread():
    worker = BlockingWorker()
    with cm.Entrypoint("served") as entrypoint:
        yield entrypoint, worker, entrypoint.manage(worker).cast(Work)


@contextlib.contextmanager
def in_a_loop(loop):
    worker, entrypoint = Awaited(), aio.Entrypoint("served")
    thread = by_hand.Concurrent(functools.partial(run, loop, entrypoint.serve_forever, seconds=4 * PATIENCE))
    try:
        work = entrypoint.manage(worker).cast(Work)
        # From here on it is served.
        work.double(1)
        yield entrypoint, worker, work
    finally:
        entrypoint.close()
        thread.outcome()


@pytest.fixture(params=["blocking", *LOOPS])
def served(request):
    """(entrypoint, worker, proxy), of each colour."""
    with in_a_thread() if request.param == "blocking" else in_a_loop(request.param) as made:
        yield made


def junk(sent, data, descriptors=()):
    by_hand.at_door(cm.capability(sent), data, descriptors)


def test_it_runs_between_calls(served, fork):
    """In the serving thread; whoever sends, another process, a method or any thread, does not wait for it."""
    entrypoint, worker, proxy = served
    seen, came = [], threading.Event()

    def handler():
        seen.append(threading.get_ident())
        came.set()

    sent = entrypoint.on_signal(handler)
    fork(sent.send)
    assert came.wait(PATIENCE)
    came.clear()
    seen.clear()

    def during():
        seen.append(threading.get_ident())
        sent.send()
        seen.append("sent")

    worker.during = during
    assert proxy.double(2) == 4
    assert came.wait(PATIENCE)
    thread = seen[0]
    assert seen == [thread, "sent", thread]


def test_what_comes_before_it_runs_is_one(served):
    """However many they were: a thousand that a method sends, say."""
    entrypoint, worker, proxy = served
    runs = []
    sent = entrypoint.on_signal(lambda: runs.append(True))
    worker.during = lambda: [sent.send() for _ in range(1000)]
    proxy.double(1)
    until(lambda: runs)
    worker.during = lambda: None
    assert proxy.double(1) == proxy.double(1) == 2
    assert runs == [True]


def test_each_has_its_own(served):
    """And one that is made in the handler of another works as well."""
    entrypoint, _, _ = served
    seen, made = [], []

    def first():
        seen.append("first")
        made.append(entrypoint.on_signal(lambda: seen.append("third")))
        made[0].send()

    one, other = entrypoint.on_signal(first), entrypoint.on_signal(lambda: seen.append("second"))
    assert one != other
    other.send()
    until(lambda: seen == ["second"])
    one.send()
    until(lambda: seen == ["second", "first", "third"])


def test_what_it_raises_is_in_the_log(served, caplog):
    """And ends nothing, whatever it is."""
    entrypoint, _, proxy = served
    errors = [ValueError("spam"), SystemExit(3), KeyboardInterrupt()]

    def handler():
        raise errors.pop(0)

    sent = entrypoint.on_signal(handler)
    while errors:
        left = len(errors)
        sent.send()
        until(lambda left=left: len(errors) < left)
    assert proxy.double(2) == 4
    first = caplog.records[0]
    assert "served: on_signal(" in first.getMessage()
    assert "spam" in caplog.text
    # Likewise for the others, of which that is not said again; and nothing of a fault of the package's own.
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    caplog.clear()


def test_it_ends_when_nobody_holds_the_signal(served, fork, open_descriptors):
    """In any process; what was sent before that is done first, and the handler is kept no longer."""
    entrypoint, _, _ = served
    runs = []

    class Handler:
        def __call__(self):
            runs.append(True)

    handler = Handler()
    kept, before = weakref.ref(handler), open_descriptors()
    sent = entrypoint.on_signal(handler)
    del handler
    with by_hand.pipe() as (reader, writer):

        def hold(sent=sent):
            reader.read(1)
            sent.send()

        holder = fork(hold)
        del sent, hold
        gc.collect()
        assert kept() is not None
        writer.write(b"!")
        holder.result()
    until(lambda: runs == [True])
    until(lambda: kept() is None)
    assert reaper.wait(PATIENCE)
    until(lambda: open_descriptors() == before)


def test_a_flood_has_no_more_than_its_share(served, fork):
    """Calls go on, and so does another signal, while two processes do nothing but send."""
    entrypoint, _, proxy = served
    runs, others = [0], []

    def handler():
        runs[0] += 1

    flooded, quiet = entrypoint.on_signal(handler), entrypoint.on_signal(lambda: others.append(True))

    def flood():
        with contextlib.suppress(cm.Disconnected):
            while True:
                flooded.send()

    children = [fork(flood) for _ in range(2)]
    until(lambda: runs[0] > 10)
    before = runs[0]
    for value in range(100):
        assert proxy.double(value) == 2 * value
    quiet.send()
    until(lambda: others)
    until(lambda: runs[0] > before)
    for child in children:
        child.kill()


def test_a_holder_that_lengthens_the_queue_has_no_longer_turns(served):
    """A few records are taken at a time, and calls have their turns between them, however many lie there."""
    entrypoint, worker, proxy = served
    runs, sent = [], entrypoint.on_signal(lambda: runs.append(True))

    def fill():
        with socket.socket(fileno=os.dup(open_door_of(cm.capability(sent)).number)) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            with contextlib.suppress(BlockingIOError):
                while True:
                    door.send(SIGNAL_RECORD, socket.MSG_DONTWAIT)

    worker.during = fill
    proxy.double(1)
    worker.during = lambda: None
    until(lambda: len(runs) > 10)


def test_junk_is_no_signal(served, caplog, files, open_descriptors):
    """It is logged as rarely as all that strangers do, its descriptors are closed, and nobody else is disturbed."""
    entrypoint, _, proxy = served
    runs, (file,) = [], files(1)
    sent = entrypoint.on_signal(lambda: runs.append(True))
    proxy.double(1)
    before = open_descriptors()
    for data in (b"", b"x", bytes(16), bytes(4000)):
        for count in (0, 1, 253):
            junk(sent, data, [file] * count)
            assert proxy.double(2) == 4
    until(lambda: caplog.records)
    assert runs == []
    sent.send()
    until(lambda: runs == [True])
    assert "one of those who hold the signal of on_signal(" in caplog.records[0].getMessage()
    assert "sends something else" in caplog.records[0].getMessage()
    assert len(caplog.records) <= 3
    until(lambda: open_descriptors() == before)
    caplog.clear()


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_holder_that_shuts_the_door_ends_it_for_all(served, how):
    """Nobody spins, and what else is served goes on."""
    entrypoint, _, proxy = served
    runs = []
    sent, other = entrypoint.on_signal(lambda: runs.append(1)), entrypoint.on_signal(lambda: runs.append(2))
    with socket.socket(fileno=os.dup(open_door_of(cm.capability(sent)).number)) as door:
        door.shutdown(how)
    cm.wait_gone(sent, PATIENCE)
    with pytest.raises(cm.Disconnected):
        sent.send()
    other.send()
    until(lambda: runs == [2])
    assert proxy.double(2) == 4


def test_descriptors_that_take_long_to_close_delay_nobody(served, lingering, quiet_log):
    """And who goes on sending them has shut the door."""
    del quiet_log
    entrypoint, worker, proxy = served
    sent, peers = entrypoint.on_signal(lambda: None), []
    begun, may_go_on = threading.Event(), threading.Event()
    reading, writing = os.pipe()
    # Nothing is received before the numbers here are closed: the last close is to be the server's.
    worker.during = lambda: begun.set() or may_go_on.wait(PATIENCE)
    calling = by_hand.Concurrent(proxy.double, 2)
    assert begun.wait(PATIENCE)
    for _ in range(2):
        number, peer = lingering(int(PATIENCE))
        peers.append(peer)
        junk(sent, b"junk", [number, *[reading] * 252])
        os.close(number)
    may_go_on.set()
    calling.outcome()
    cm.wait_gone(sent, PATIENCE)
    assert proxy.double(2) == 4
    for peer in peers:
        peer.close()
    os.close(reading)
    os.close(writing)
    assert reaper.wait(PATIENCE)


def test_it_ends_with_the_entrypoint(served):
    """Who sends is told, and nobody can be given one any more."""
    entrypoint, _, _ = served
    sent = entrypoint.on_signal(lambda: None)
    entrypoint.close()
    cm.wait_gone(sent, PATIENCE)
    with pytest.raises(cm.Disconnected):
        sent.send()
    with pytest.raises(cm.Closed, match="the entrypoint 'served' is closed"):
        entrypoint.on_signal(lambda: None)


def test_none_is_given_where_service_ends_meanwhile(served, monkeypatch):
    """Between two steps of another thread's: a signal that nobody would hear of."""
    entrypoint, _, _ = served
    monkeypatch.setattr(SignalHandlers, "add", lambda _all, _one: False)
    with pytest.raises(cm.Closed, match="the entrypoint 'served' is closed"):
        entrypoint.on_signal(lambda: None)


def test_a_forked_child_serves_none(served, fork):
    """It has the signal, as anybody may."""
    entrypoint, _, _ = served
    runs = []
    sent = entrypoint.on_signal(lambda: runs.append(True))

    def child():
        sent.send()
        try:
            entrypoint.on_signal(lambda: None)
        except cm.Closed as closed:
            return "its parent's" in str(closed)

    assert fork(child).result()
    until(lambda: runs == [True])


def test_what_cannot_be_called(served):
    entrypoint, _, _ = served
    with pytest.raises(TypeError, match=r"what on_signal.* takes is called when a signal has come, and 3 cannot be"):
        entrypoint.on_signal(3)
    with pytest.raises(TypeError, match=r"signal is called without arguments, and <.*> takes other arguments$"):
        entrypoint.on_signal(lambda signal: None)


def test_a_thread_awaits_nothing():
    async def handler(): ...

    with cm.Entrypoint("blocking") as entrypoint, pytest.raises(TypeError, match="the handler of a signal is async"):
        entrypoint.on_signal(handler)


def test_signals_that_come_before_anybody_serves():
    """They wait, and where nobody ever does they go with the entrypoint."""
    runs = []
    entrypoint = cm.Entrypoint("late")
    sent = entrypoint.on_signal(lambda: runs.append(True))
    sent.send()
    with entrypoint:
        until(lambda: runs == [True])
    never = cm.Entrypoint("never")
    kept = never.on_signal(lambda: None)
    never.close()
    cm.wait_gone(kept, PATIENCE)
    with pytest.raises(cm.Disconnected):
        kept.send()


@each_loop
def test_one_that_is_awaited_runs_once_at_a_time(loop):
    """What comes meanwhile has it run once more, and calls go on."""
    entrypoint, worker = aio.Entrypoint("awaited"), Worker()
    running, most, runs = 0, 0, 0

    async def handler():
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        await worker.wait("handler")
        running -= 1

    async def main():
        async with entrypoint:
            sent = entrypoint.on_signal(handler)
            sent.send()
            await worker.began()
            for _ in range(100):
                sent.send()
            work = entrypoint.manage(worker).cast(AwaitedWork)
            assert await work.double(2) == 4
            worker.go = True
            worker.tell()
            await worker.until(lambda: worker.seen.count(("began", "handler")) == 2)
            assert await work.double(2) == 4
            await in_thread(until, lambda: running == 0)
        assert (most, runs) == (1, 2)

    run(loop, main)


@each_loop
def test_one_that_runs_when_service_ends_is_cancelled(loop, caplog):
    """However it ends; where it is served again, what it was to do is done."""
    entrypoint, worker = aio.Entrypoint("awaited"), Worker()

    async def handler():
        await worker.wait("handler")

    sent = entrypoint.on_signal(handler)
    sent.send()

    async def once():
        if loop == "trio":
            async with anyio.create_task_group() as group:
                group.start_soon(entrypoint.serve_forever)
                await worker.began()
                group.cancel_scope.cancel()
        else:
            serving = asyncio.create_task(entrypoint.serve_forever())
            await worker.began()
            assert not serving.done()

    async def again():
        async with entrypoint:
            await worker.began()

    run(loop, once)
    assert worker.running == 0
    run(loop, again)
    assert worker.running == 0
    assert worker.seen.count(("cancelled", "handler")) == 2
    assert caplog.records == []
