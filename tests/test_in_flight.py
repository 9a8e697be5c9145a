"""ETOOMANYREFS: senders wait for the queue to drain; at the deadline they say whose limit it was."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import threading
import time

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper as _reaper
from loops import LOOPS
from loops import run as run_in

PATIENCE = by_hand.PATIENCE
LIMIT = 64


class Jam:
    """As many descriptors in flight as this user may have, in a queue of our own."""

    def __init__(self):
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)
        try:
            while True:
                by_hand.send(self.near, b"x", [0])
        except OSError as error:
            assert error.errno == 109, error  # ETOOMANYREFS

    def drain(self):
        self.far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.far.recv(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drain()
        self.near.close()
        self.far.close()


def count_open():
    assert _reaper.wait(PATIENCE)
    found = 0
    for number in range(LIMIT):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found += 1
    return found


def surplus(before):
    """How many more are open for good: the server closes a moment after its answer."""
    deadline = time.monotonic() + PATIENCE
    while count_open() > before and time.monotonic() < deadline:
        pass
    return max(count_open() - before, 0)


@pytest.fixture
def ordinary(fork):
    """ordinary(function): runs it as an ordinary user whose limit is low; what it returns."""
    return lambda function: fork(function, ordinary=True, table=LIMIT).result()


def _says_whose_limit(error):
    words = str(error)
    return all(part in words for part in (f"user {os.getuid()}", str(LIMIT), "RLIMIT_NOFILE", "raise the limit"))


def test_an_argument_waits_until_the_queue_drains(ordinary):
    """A call with a descriptor succeeds once somebody receives what is in flight."""

    def client():
        with by_hand.serving() as capability, by_hand.temporary() as file, Jam() as jam:
            jam.drain()
            proxy = capability.cast(by_hand.Work)
            assert proxy.count([file]) == 1
            before = count_open()
            with Jam() as second:
                draining = threading.Timer(0.1, second.drain)
                draining.start()
                with cm.timeout(PATIENCE):
                    assert proxy.count([file]) == 1
                draining.join()
            return surplus(before) == 0

    assert ordinary(client)


def test_a_knock_waits_until_the_queue_drains(ordinary):
    """So does the first call, whose knock carries the channel."""

    def client():
        with by_hand.serving() as capability, Jam() as jam:
            draining = threading.Timer(0.1, jam.drain)
            draining.start()
            with cm.timeout(PATIENCE):
                doubled = capability.cast(by_hand.Work).double(4)
            draining.join()
            return doubled

    assert ordinary(client) == 8


class AwaitedWork(cm.Interface):
    double = cm.awaitable(by_hand.Work.double)
    count = cm.awaitable(by_hand.Work.count)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("first", [True, False], ids=["knock", "argument"])
def test_an_awaited_call_waits_too_and_others_run(ordinary, loop, first):
    """It is a task of the same loop that drains the queue; and at its deadline a call says whose limit it was."""

    def client():
        with by_hand.serving() as capability, by_hand.temporary() as file, Jam() as jam:
            proxy = capability.cast(AwaitedWork)

            async def call():
                if not first:
                    jam.drain()
                    assert await proxy.count([file]) == 1
                with Jam() as second:
                    with pytest.raises(cm.TooManyInFlight) as caught, cm.timeout(0.05):
                        await proxy.count([file])
                    with anyio.move_on_after(0.01) as scope:
                        await proxy.count([file])
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(proxy.count, [file])
                        await anyio.wait_all_tasks_blocked()
                        second.drain()
                        jam.drain()
                return _says_whose_limit(caught.value), scope.cancelled_caught

            before = count_open()
            outcome = run_in(loop, call)
            for channel in open_door_of(capability).idle:
                channel.drop()
            # What an error has of its loop, its traceback keeps; and the loop keeps what its calls waited at.
            gc.collect()
            return outcome, surplus(before)

    assert ordinary(client) == ((True, True), 0)


@pytest.mark.parametrize("first", [True, False], ids=["knock", "argument"])
def test_at_the_deadline_it_says_whose_limit_it_was(ordinary, first):
    """TooManyInFlight names the user, the limit and what helps; nothing is left behind, and the next call works."""

    def client():
        with by_hand.serving() as capability, by_hand.temporary() as file:
            proxy = capability.cast(by_hand.Work)
            if not first:
                assert proxy.count([file]) == 1
            before = count_open()
            with Jam():
                with pytest.raises(cm.TooManyInFlight) as caught, cm.timeout(0.1):
                    proxy.count([file])
                if not first:
                    # Without a descriptor the same channel works.
                    assert proxy.double(2) == 4
            after = surplus(before)
            with cm.timeout(PATIENCE):
                assert proxy.count([file]) == 1
            return _says_whose_limit(caught.value), after

    assert ordinary(client) == (True, 0)


def test_a_result_waits_until_the_queue_drains(ordinary):
    """The server parks the answer, serves others meanwhile, and sends it when there is room."""

    def client():
        with by_hand.serving() as capability, by_hand.knock(capability) as other:
            proxy = capability.cast(by_hand.Work)
            with cm.timeout(PATIENCE):
                for file in proxy.pipes(2):
                    file.close()
                # Its knock is in flight until it is received.
                other.send(by_hand.call(capability))
                by_hand.answer(other)
                before = count_open()

                def ask():
                    with cm.timeout(PATIENCE):
                        return proxy.pipes(2)

                with Jam() as jam:
                    jammed = count_open()
                    asking = by_hand.Concurrent(ask)
                    while asking.is_alive() and count_open() < jammed + 2:
                        pass
                    for number in range(1, 20):
                        other.send(by_hand.call(capability, id=number))
                        assert by_hand.answer(other)[0].id == number
                    assert asking.is_alive()
                    jam.drain()
                    files = asking.outcome()
                for file in files:
                    file.close()
                return len(files), surplus(before)

    assert ordinary(client) == (2, 0)


def test_a_result_that_was_parked_for_another_reason_waits_too(ordinary):
    """First the client did not read, then too many were in flight: it gets its answer all the same."""

    def client():
        with by_hand.serving() as capability, by_hand.knock(capability) as near, by_hand.knock(capability) as other:
            # Two answers fill the channel's queue; the third, with descriptors, is parked.
            for number in (1, 2):
                near.send(by_hand.call(capability, b"blob", b"\x91\xce\x00\x01\x90\x00", id=number))
            near.send(by_hand.call(capability, b"pipes", b"\x91\x02", id=3))
            other.send(by_hand.call(capability))
            by_hand.answer(other)
            with Jam() as jam:
                assert [by_hand.answer(near)[0].id for _ in range(2)] == [1, 2]
                for number in range(1, 20):
                    other.send(by_hand.call(capability, id=number))
                    assert by_hand.answer(other)[0].id == number
                jam.drain()
                record, descriptors = by_hand.answer(near)
            for number in descriptors:
                os.close(number)
            return record.id, len(descriptors)

    assert ordinary(client) == (3, 2)


def test_a_result_that_never_fits_is_given_up(ordinary):
    """A server does not keep it for ever: its caller is told, or has gone; nothing stays open."""

    def client():
        from capmarshal._server import loop as _server

        # The patience of ten seconds is for people; the way it ends is the same after a tenth.
        _server.IN_FLIGHT_PATIENCE = 100_000_000
        with by_hand.serving() as capability, cm.timeout(PATIENCE):
            proxy = capability.cast(by_hand.Work)
            assert proxy.double(1) == 2
            before = count_open()
            with Jam(), pytest.raises(cm.TooManyInFlight) as caught:
                proxy.pipes(2)
            words = _says_whose_limit(caught.value)
            assert proxy.double(2) == 4
            return words, surplus(before)

    assert ordinary(client) == (True, 0)


def test_raising_the_soft_limit_helps_at_once(fork):
    """What the error advises works."""

    def client():
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, 4 * LIMIT))
        with by_hand.serving() as capability, by_hand.temporary() as file:
            proxy = capability.cast(by_hand.Work)
            with Jam():
                with pytest.raises(cm.TooManyInFlight), cm.timeout(0.05):
                    proxy.count([file])
                resource.setrlimit(resource.RLIMIT_NOFILE, (2 * LIMIT, 4 * LIMIT))
                with cm.timeout(PATIENCE):
                    return proxy.count([file])

    assert fork(client, ordinary=True).result() == 1
