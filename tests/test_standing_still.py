"""Who is taken to stand still: a client has only the time in which it could have moved, not what another's call took.

The server's clock is the test's, and goes on while a call runs: afterwards all that had to move is late, and the loop
sees to that before it comes round to the channels.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from types import SimpleNamespace

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand
from capmarshal._async_server import serving as serving_in_a_loop
from capmarshal._descriptors import reaper
from capmarshal._protocol import wire
from capmarshal._protocol.states import UNREAD, State
from capmarshal._server import answers, arrivals, awaited_loop, backlog, loop, timers
from patience import PATIENCE

pytestmark = pytest.mark.usefixtures("quiet_log")

MOST = 1 << 20
SIZE = 900_000
# So long that no test takes it.
STILL = int(4 * PATIENCE * 1e9)


class Work(cm.Interface):
    @cm.method
    def make(self, size: int, count: int) -> tuple[bytes, list[cm.Descriptor]]: ...

    @cm.method
    def size(self, data: bytes) -> int: ...

    @cm.method
    def count(self, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def take_long(self) -> bool: ...

    @cm.method
    def block(self, began: cm.Descriptor, going: cm.Descriptor) -> None: ...


class Worker(Work):
    """Serves it; a call of ``take_long`` takes long, and ``meanwhile`` is what clients do."""

    def block(self, began, going):
        os.write(began.fileno(), b".")
        select.select([going.fileno()], [], [], PATIENCE)

    def __init__(self, clock):
        self._clock = clock
        self.meanwhile = lambda: None

    def make(self, size, count):
        with by_hand.pipe() as (reader, _):
            return bytes(size), [cm.Descriptor.dup_of(reader) for _ in range(count)]

    def size(self, data):
        return len(data)

    def count(self, files):
        return len(files)

    def take_long(self):
        self.meanwhile()
        self._clock.passed += 2 * STILL
        return True


@pytest.fixture
def clock(monkeypatch):
    """The server's, and how much later than others it is."""
    made = SimpleNamespace(passed=0)
    made.monotonic_ns = lambda: time.monotonic_ns() + made.passed
    for module in (arrivals, awaited_loop, backlog, loop, timers, serving_in_a_loop):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(answers, "_CLOSING_PATIENCE", STILL)
    monkeypatch.setattr(arrivals, "_STILL", STILL)
    monkeypatch.setattr(backlog, "_STILL", STILL)
    return made


@contextlib.contextmanager
def serving(clock, **limits):
    """What is served, its capability, two channels to it, and how the server has them."""
    worker = Worker(clock)
    with cm.Entrypoint("still", max_bytes=MOST, limits=cm.Limits(**limits)) as entrypoint:
        capability = entrypoint.manage(worker)
        with contextlib.closing(by_hand.knock(capability)) as one, contextlib.closing(by_hand.knock(capability)) as two:
            yield worker, capability, (one, two), entrypoint._service._server._channels
        worker.meanwhile = lambda: None


def another_takes_long(fork, capability):
    """Of another process: the one with the channels may be held back."""

    def call():
        with cm.timeout(PATIENCE):
            return capability.cast(Work).take_long()

    assert fork(call).result()


@pytest.mark.parametrize(("count", "state"), [(0, State.SENDING), (300, State.AWAITING_GO)])
def test_who_has_read_what_was_sent_keeps_its_answer(fork, until, clock, count, state):
    """However long the server then takes to send more of it."""
    with serving(clock, unread_bytes=3 * MOST) as (worker, capability, nears, channels):
        for near in nears:
            near.send(parts_by_hand.call(capability, b"make", [SIZE, count]))
        until(lambda: [one.state for one in channels.all()] == [state] * 2)
        readers = []

        def read():
            readers.extend(by_hand.Concurrent(parts_by_hand.long_answer, near) for near in nears)
            for channel in channels.all():
                if channel.state in UNREAD:
                    until(channel.all_received)
                    if state is State.AWAITING_GO:
                        assert select.select([channel.far.number], [], [], PATIENCE)[0]

        worker.meanwhile = read
        another_takes_long(fork, capability)
        for reader in readers:
            record, numbers = reader.outcome()
            parts_by_hand.close_all(numbers)
            assert len(record.payload) > SIZE
            assert len(numbers) == count


@pytest.mark.parametrize("count", [0, 300])
def test_who_reads_nothing_meanwhile_loses_it(fork, until, clock, count):
    """Its process has more unread than it may."""
    with serving(clock, unread_bytes=3 * MOST) as (_, capability, nears, channels):
        for near in nears:
            near.send(parts_by_hand.call(capability, b"make", [SIZE, count]))
        until(lambda: sum(one.state in UNREAD for one in channels.all()) == 2)
        another_takes_long(fork, capability)
        until(lambda: not channels.all())


@pytest.mark.parametrize("sends", [True, False])
def test_whose_call_goes_on_while_the_server_is_busy_does_not_make_way(fork, until, clock, sends):
    """One that waits for its share takes that of a call of which nothing comes, and not of one that is not read."""
    data = bytes(SIZE)
    with serving(clock, begun_bytes=MOST) as (worker, capability, (one, two), channels):
        record = parts_by_hand.call(capability, b"size", [data])
        first, *rest = [piece for piece, _, _ in parts_by_hand.pieces(record)]
        one.send(first)
        until(lambda: {each.state for each in channels.all()} == {State.IDLE, State.RECEIVING})
        two.send(first)
        until(lambda: {each.state for each in channels.all()} == {State.RECEIVING, State.QUEUED})
        others = iter(rest)
        if sends:
            worker.meanwhile = lambda: one.send(next(others))
        another_takes_long(fork, capability)
        if sends:
            for piece in others:
                one.send(piece)
            assert by_hand.answer(one)[0].id == 1
        else:
            assert by_hand.answer(one) == (wire.Gone(), [])
        for piece in rest:
            two.send(piece)
        assert by_hand.answer(two)[0].id == 1


def test_what_is_closed_while_the_server_is_busy_is_not_said_to_take_long(until, clock, lingering, caplog, drain):
    """Nor is its answer sent for the time that has passed, but since all is closed."""
    caplog.set_level(logging.WARNING, "capmarshal")
    number, far = lingering(4 * int(PATIENCE))
    with serving(clock) as (worker, capability, (near, _), channels):
        with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
            # The server takes it when nobody else has it, whose close would be the last, and linger here.
            blocking = by_hand.Concurrent(capability.cast(Work).block, began, going)
            assert started.read(1) == b"."
            by_hand.send(near, parts_by_hand.call(capability, b"count", [[0]], 1), [number])
            os.close(number)
            go.close()
            blocking.outcome()
        until(lambda: State.CLOSING in {one.state for one in channels.all()})

        def close():
            drain(far)
            assert reaper.wait(PATIENCE)

        worker.meanwhile = close
        # Not of a forked process: what this one is about to close may be open in a child, and far's end would not come.
        assert by_hand.Concurrent(capability.cast(Work).take_long).outcome()
        assert by_hand.answer(near)[0].id == 1
    assert not caplog.records
