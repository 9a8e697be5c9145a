"""The reaper: closing what a stranger sent delays nobody."""

import fcntl
import os
import socket
import threading
import time

import pytest

from capmarshal import Descriptor
from capmarshal._descriptors import reaper as _reaper
from capmarshal._kernel.native import ffi, lib


def _is_open(number):
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def test_a_lingering_socket_delays_the_reaper_alone(lingering, drain):
    """Its close() takes a minute, or until the peer reads: the caller goes on at once, the reaper waits."""
    number, peer = lingering(60)
    begun = time.monotonic()
    _reaper.close_descriptor(number)
    assert time.monotonic() - begun < 30
    assert not _reaper.wait(0.1), "the close did not block, so this test shows nothing"
    drain(peer)
    assert _reaper.wait(30)
    assert not _is_open(number)


@pytest.mark.parametrize("kind", ["pipe", "memfd"])
def test_what_closes_quickly_is_closed_at_once(kind, lingering, drain):
    """A pipe or a memfd does not queue behind what blocks."""
    slow, peer = lingering(60)
    _reaper.close_descriptor(slow)
    numbers = os.pipe() if kind == "pipe" else [os.memfd_create("quick", os.MFD_CLOEXEC)]
    for number in numbers:
        _reaper.close_descriptor(number)
    assert [_is_open(number) for number in numbers] == [False] * len(numbers)
    drain(peer)


@pytest.mark.parametrize("make", [lambda p: os.open(p, os.O_RDONLY), lambda p: socket.socket().detach()])
def test_what_may_block_goes_to_the_reaper_and_is_closed(make, tmp_path):
    """Files and sockets are closed by the time that wait() returns."""
    number = make(tmp_path)
    _reaper.close_descriptor(number)
    assert _reaper.wait(30)
    assert not _is_open(number)


def test_wait_covers_all_that_was_handed_over_before(files):
    """After wait(), everything handed over before it is closed."""
    closed = []

    class Closable:
        def __init__(self, number):
            self.number = number

        def close(self):
            closed.append(self.number)

    for number in range(100):
        _reaper.close(Closable(number))
    assert _reaper.wait(30)
    assert sorted(closed) == list(range(100))


def test_an_error_in_closing_does_not_end_the_reaper():
    """What raises in its close() is nobody's, and the next one is closed."""

    class Broken:
        def close(self):
            raise RuntimeError("broken")

    _reaper.close(Broken())
    assert _reaper.wait(30)


def test_what_blocks_delays_nothing_else(lingering, drain):
    """A socket that takes a minute to close does not hold up what others hand over after it."""
    slow, peer = lingering(60)
    _reaper.close_descriptor(slow)
    assert not _reaper.wait(0.1), "the close did not block, so this test shows nothing"
    closed = threading.Event()

    class Closable:
        def close(self):
            closed.set()

    _reaper.close(Closable())
    assert closed.wait(30)
    drain(peer)
    assert _reaper.wait(30)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 300])
@pytest.mark.parametrize("kind", ["pipes", "files", "both"])
def test_all_of_one_record_are_closed_and_nothing_else(count, kind, tmp_path):
    """Few or many, quick or not: each is closed, those among them that were closed before are nobody's any more."""
    path, (reader, writer) = tmp_path / "file", os.pipe()
    path.touch()
    with Descriptor(reader), Descriptor(writer):
        opened = {
            "pipes": lambda at: os.dup(reader),
            "files": lambda at: os.open(path, os.O_RDONLY),
            "both": lambda at: os.open(path, os.O_RDONLY) if at % 2 else os.dup(writer),
        }[kind]
        descriptors = [Descriptor(opened(at)) for at in range(count)]
        numbers = [descriptor.fileno() for descriptor in descriptors]
        # Somebody else's by the time that the batch is closed.
        foreign = descriptors[count // 2].detach()
        _reaper.close_files(descriptors)
        assert _reaper.wait(30)
        assert [number for number in numbers if _is_open(number)] == [foreign]
        assert all(descriptor.closed for descriptor in descriptors)
        os.close(foreign)


def test_many_that_close_quickly_do_not_pile_up_behind_a_busy_reaper(lingering, drain, files):
    """With every thread of it held up, memfds are closed at once, however many came in one record."""
    slow = [lingering(60) for _ in range(_reaper._WORKERS_MAX)]
    for number, _peer in slow:
        _reaper.close_descriptor(number)
    assert not _reaper.wait(0.1), "the close did not block, so this test shows nothing"
    descriptors = [Descriptor(os.dup(number)) for number in files(300)]
    _reaper.close_files(descriptors)
    assert all(descriptor.closed for descriptor in descriptors)
    for _number, peer in slow:
        drain(peer)
    assert _reaper.wait(30)


def test_an_error_in_a_batch_does_not_keep_the_rest_open(files):
    """Of many that came in one record, one whose close() raises is passed over."""

    class Broken:
        def fileno(self):
            return 0

        def close(self):
            raise RuntimeError("broken")

    descriptors = [Descriptor(os.dup(number)) for number in files(40)]
    _reaper.close_files([*descriptors[:20], Broken(), *descriptors[20:]])
    assert _reaper.wait(30)
    assert all(descriptor.closed for descriptor in descriptors)


def test_a_child_forked_in_the_middle_of_a_batch_closes_the_rest(lingering, drain, fork, files):
    """What the parent's reaper has not begun to close, the child's closes; each in its own table only."""
    number, peer = lingering(60)
    rest = [os.dup(number) for number in files(100)]
    _reaper.close_files([Descriptor(number), *map(Descriptor, rest)])
    assert not _reaper.wait(0.1), "the close did not block, so this test shows nothing"

    def child():
        return _reaper.wait(30), [_is_open(number) for number in rest]

    assert fork(child).result() == (True, [False] * 100)
    assert [_is_open(number) for number in rest] == [True] * 100
    drain(peer)
    assert _reaper.wait(30)
    assert [_is_open(number) for number in rest] == [False] * 100


def test_few_threads_whatever_comes():
    """Many threads that hand over at once start no more threads than may block."""
    start = threading.Barrier(8)

    def hand_over():
        start.wait(30)
        _reaper.close(Descriptor(os.dup(0)))

    threads = [threading.Thread(target=hand_over) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert _reaper.wait(30)
    assert [thread.name for thread in threading.enumerate()].count("capmarshal reaper") <= _reaper._WORKERS_MAX


def test_a_child_forked_while_the_reaper_is_busy_closes_its_copies(lingering, drain, fork, files):
    """What waits in the parent's queue is open in the child too: the child's own reaper closes it."""
    slow = [lingering(60) for _ in range(_reaper._WORKERS_MAX)]
    for number, _peer in slow:
        _reaper.close_descriptor(number)
    assert not _reaper.wait(0.1), "the close did not block, so this test shows nothing"
    queued = [os.dup(number) for number in files(5)]
    for number in queued:
        _reaper.close(Descriptor(number))

    def child():
        before = [_is_open(number) for number in queued]
        waited = _reaper.wait(30)
        return before, waited, [_is_open(number) for number in queued]

    assert fork(child).result() == ([True] * 5, True, [False] * 5)
    # And the parent's are the parent's business.
    assert [_is_open(number) for number in queued] == [True] * 5
    for _number, peer in slow:
        drain(peer)
    assert _reaper.wait(30)
    assert [_is_open(number) for number in queued] == [False] * 5


@pytest.mark.parametrize("count", [2, 16, 17, 300])
def test_a_batch_takes_what_it_closes_from_its_owners(files, count):
    """Each Descriptor has nothing left, so nobody closes a number twice; the files of others stay open."""
    foreign = [os.dup(number) for number in files(3)]
    descriptors = [Descriptor(os.dup(number)) for number in files(count)]
    descriptors[1].close()
    numbers = [descriptor.fileno() for descriptor in descriptors if not descriptor.closed]
    _reaper.close_files(descriptors)
    assert all(descriptor.closed for descriptor in descriptors)
    assert _reaper.wait(30)
    assert not any(_is_open(number) for number in numbers)
    for number in foreign:
        os.close(number)


@pytest.mark.parametrize("function", [lib.cm_close_all, lib.cm_close_quick])
def test_c_closes_an_array_once_and_leaves_minus_one(files, function):
    """Memfds close quickly, so both functions close all; the second time there is nothing left to close."""
    numbers = [os.dup(number) for number in files(5)]
    batch = ffi.new("struct cm_batch *", (6, [*numbers[:2], -1, *numbers[2:]]))
    function(batch)
    assert ffi.unpack(batch.descriptors, 6) == [-1] * 6
    again = [os.dup(number) for number in files(5)]
    assert not function(batch)
    for number in again:
        os.close(number)


def test_c_leaves_what_may_block(files, lingering, drain):
    """A socket that lingers stays in the array, with its number, and is counted."""
    (number, peer), memfd = lingering(60), os.dup(files(1)[0])
    batch = ffi.new("struct cm_batch *", (2, [number, memfd]))
    assert lib.cm_close_quick(batch) == 1
    assert ffi.unpack(batch.descriptors, 2) == [number, -1]
    closing = threading.Thread(target=lib.cm_close_all, args=(batch,))
    closing.start()
    drain(peer)
    closing.join(30)
    assert ffi.unpack(batch.descriptors, 2) == [-1, -1]
