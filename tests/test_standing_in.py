"""Another function in the place of a file's method: for one thread, and gone afterwards, whoever else does the same."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

import by_hand
import capmarshal as cm
from capmarshal._kernel.deadline import ahead
from capmarshal._typed import standing_in as module
from capmarshal._typed.flushing import flush_within
from capmarshal._typed.standing_in import standing_in
from patience import PATIENCE, until
from waiting_thread import waits_in


class Thing:
    def __init__(self):
        self.name = "its own"

    def say(self, what="nothing"):
        return f"{self.name}: {what}"


def test_it_is_for_this_thread_and_the_time_of_the_block():
    thing = Thing()
    with standing_in(thing, "say", lambda what: f"mine: {what}"):
        assert thing.say("a") == "mine: a"
        assert by_hand.Concurrent(thing.say).outcome() == "its own: nothing"
        # As a signal handler may, that uses the file too.
        with standing_in(thing, "say", lambda what: f"inner: {what}"):
            assert thing.say("b") == "inner: b"
        assert thing.say("c") == "mine: c"
    assert vars(thing) == {"name": "its own"}


@pytest.mark.parametrize("first", [0, 1], ids=["the first goes first", "the second goes first"])
def test_two_threads_overlap(first):
    """Each has its own, and the last takes away what was put there: in the place of the method, or of a user's."""
    thing = Thing()
    thing.say = theirs = lambda: "a user's"
    inside = [threading.Event(), threading.Event()]
    leave = [threading.Event(), threading.Event()]

    def run(which):
        with standing_in(thing, "say", lambda: which):
            inside[which].set()
            assert leave[which].wait(PATIENCE)
            return thing.say()

    threads = [by_hand.Concurrent(run, which) for which in (0, 1)]
    assert all(event.wait(PATIENCE) for event in inside)
    assert thing.say() == "a user's"
    for which in (first, 1 - first):
        leave[which].set()
        assert threads[which].outcome() == which
    assert thing.say is theirs
    assert not module._all


def test_what_somebody_else_has_put_there_stays():
    thing = Thing()
    with standing_in(thing, "say", lambda: "mine"):
        thing.say = other = lambda: "another's"
    assert thing.say is other


def test_an_owner_without_such_a_method_is_as_it_was():
    thing = Thing()
    with pytest.raises(AttributeError), standing_in(thing, "shout", print):
        pass
    assert vars(thing) == {"name": "its own"}
    assert not module._all


def test_a_forked_child_keeps_its_own_thread_s_alone(fork):
    """The others do not exist there, and the next thread may have the number of one of them."""
    thing, inside, leave = Thing(), threading.Event(), threading.Event()

    def other():
        with standing_in(thing, "say", lambda: "other"):
            inside.set()
            assert leave.wait(PATIENCE)

    thread = by_hand.Concurrent(other)
    assert inside.wait(PATIENCE)

    def child():
        assert vars(thing) == {"name": "its own"}
        assert not module._all

    fork(child).result()
    leave.set()
    thread.outcome()


# ------------------------------------------------------- threads that pass one writer, and a reader that is slow


@pytest.fixture
def full():
    """The reading end of a pipe that has no room, and a writer to it that has a byte pending; neither may be in use."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, contextlib.ExitStack() as stack:
        writer = stack.enter_context(open(writing, "wb"))
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        writer.write(b"!")
        yield reader, writer
        # Whoever still has the buffer's lock writes, and so lets go of it.
        draining = by_hand.Concurrent(reader.readall)
        stack.close()
        draining.outcome()


class Sink(cm.Interface):
    @cm.method
    def take(self, file: cm.Descriptor) -> None: ...


class SinkServer(Sink):
    def take(self, file):
        pass


@pytest.fixture
def sink():
    with by_hand.serving(SinkServer()) as capability:
        yield capability.cast(Sink)
        capability.close()


def _in_place(writer):
    """What is in the place of a method of its raw file."""
    return {"write", "tell"} & vars(writer.raw).keys()


def _late(call, seconds):
    with pytest.raises(cm.CallTimeout), cm.timeout(seconds):
        call()


def test_each_of_two_threads_waits_until_its_own_deadline(sink, full):
    """The one that is later gets the buffer's lock, or not: neither hangs, and the file is as it was."""
    _, writer = full
    both = [by_hand.Concurrent(_late, lambda: sink.take(writer), seconds) for seconds in (0.1, 0.2)]
    for each in both:
        each.outcome()
    until(lambda: not _in_place(writer))


def test_both_are_served_once_there_is_room(sink, full):
    reader, writer = full

    def take():
        with cm.timeout(PATIENCE):
            sink.take(writer)

    both = [by_hand.Concurrent(take) for _ in range(2)]
    until(lambda: _in_place(writer))
    while not reader.read(1 << 16).endswith(b"!"):
        pass
    for each in both:
        each.outcome()
    until(lambda: not _in_place(writer))


def test_a_thread_that_writes_keeps_the_lock(sink, full):
    """It waits for a reader; the call that passes the file does not, for longer than it may."""
    reader, writer = full
    writing = by_hand.Concurrent(writer.write, bytes(1 << 20))
    until(lambda: waits_in(writing, writer.fileno()))
    with pytest.raises(cm.CallTimeout, match="another thread is using the file"), cm.timeout(0.1):
        sink.take(writer)
    draining = by_hand.Concurrent(lambda: sum(len(reader.read(1 << 16)) for _ in range(32)))
    assert writing.outcome() == 1 << 20
    with cm.timeout(PATIENCE):
        sink.take(writer)
    assert draining.is_alive() or draining.outcome()
    until(lambda: not _in_place(writer))
    writer.close()
    draining.outcome()


def test_what_was_given_up_writes_nothing_once_it_has_the_lock(full):
    """It would be written behind the back of a program that has been told that it was not."""
    reader, writer = full
    locked, go = threading.Event(), threading.Event()

    def write(data):
        # Writes nothing, as the system call does where there is no room.
        locked.set()
        assert go.wait(PATIENCE)

    def keep_locked():
        with standing_in(writer.raw, "write", write), pytest.raises(BlockingIOError):
            writer.flush()

    keeping = by_hand.Concurrent(keep_locked)
    assert locked.wait(PATIENCE)
    with pytest.raises(cm.CallTimeout, match="another thread"):
        flush_within(writer, ahead(1))
    go.set()
    keeping.outcome()
    until(lambda: not _in_place(writer))
    assert b"!" not in reader.read(1 << 20)
