"""Lists of descriptors: one owner each, whichever way they move."""

import fcntl
import gc
import os
import random
import signal
import sys
import time
import warnings

import pytest

import capmarshal as cm
from capmarshal import Descriptor
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._kernel.native import ffi
from patience import PATIENCE
from slow_closing import is_open


@pytest.fixture
def made():
    """made(n): n descriptors."""
    with open("/dev/null") as file:
        yield lambda count: [Descriptor.dup_of(file) for _ in range(count)]


def inodes(numbers):
    return [os.fstat(number).st_ino for number in numbers]


def test_an_empty_list_is_false_and_has_no_numbers():
    """And can be closed, and be taken from."""
    empty = DescriptorList()
    assert not empty
    assert (len(empty), empty.numbers(), empty.steal_all()) == (0, [], [])
    empty.take(DescriptorList())
    empty.close()


@pytest.mark.parametrize("count", [1, 2, 300])
def test_what_it_is_made_of_moves(made, count):
    """Each owner has nothing left; one that was closed before leaves an empty place."""
    descriptors = made(count)
    numbers = [each.fileno() for each in descriptors]
    closed = count // 2
    descriptors[closed].close()
    moved = DescriptorList.of(descriptors)
    assert all(each.closed for each in descriptors)
    assert moved.numbers() == [-1 if place == closed else number for place, number in enumerate(numbers)]
    assert bool(moved) == (count > 1)
    moved.close()
    assert not moved
    assert not any(map(is_open, numbers))


def test_closing_twice_closes_once(made):
    """The numbers are somebody else's by then."""
    some = DescriptorList.of(made(3))
    some.close()
    again = made(3)
    some.close()
    assert not any(each.closed for each in again)
    assert all(is_open(each.fileno()) for each in again)
    for each in again:
        each.close()


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 3), (3, 0), (2, 3), (250, 253)])
def test_one_list_takes_all_of_another(made, first, second):
    """To its end; the other has no places any more."""
    one, other = DescriptorList.of(made(first)), DescriptorList.of(made(second))
    expected = one.numbers() + other.numbers()
    one.take(other)
    assert one.numbers() == expected
    assert (len(other), other.numbers()) == (0, [])
    other.close()
    assert all(map(is_open, expected))
    one.close()
    assert not any(map(is_open, expected))


def test_one_that_is_stolen_leaves_its_place_empty(made):
    """The rest stay where they are."""
    some = DescriptorList.of(made(3))
    numbers = some.numbers()
    with some.steal(1) as stolen:
        assert stolen.fileno() == numbers[1]
        assert some.numbers() == [numbers[0], -1, numbers[2]]
        with pytest.raises(ValueError, match="descriptor 1 of the list was taken before"):
            some.steal(1)
        some.close()
        assert is_open(stolen.fileno())
    for place in (-1, 3, 1000):
        with pytest.raises(IndexError, match="in a list of 3"):
            some.steal(place)


def test_all_that_are_stolen_are_the_callers(made):
    """In order, one owner for each place."""
    some = DescriptorList.of(made(253))
    numbers = some.numbers()
    stolen = some.steal_all()
    assert [each.fileno() for each in stolen] == numbers
    assert len(some) == 0
    some.close()
    for each in stolen:
        each.close()


def test_copies_are_made_of_all_or_of_none(made):
    """And are copies: closing them closes nothing else."""
    [one] = made(1)
    copies = DescriptorList.dup_of([one.fileno()] * 5)
    assert inodes(copies.numbers()) == inodes([one.fileno()]) * 5
    assert all(fcntl.fcntl(number, fcntl.F_GETFD) == fcntl.FD_CLOEXEC for number in copies.numbers())
    copies.close()
    with pytest.raises(cm.KernelError, match="duplicating descriptors"):
        DescriptorList.dup_of([one.fileno(), one.fileno(), -1])
    one.close()


def test_copies_leave_the_standard_streams(fork):
    """Where those are closed: whoever opens them anew would replace what stands there."""

    def child():
        for number in (0, 1, 2):
            os.close(number)
        with open("/dev/null") as null:
            lent = fcntl.fcntl(null.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        copies = DescriptorList.dup_of([lent] * 3)
        low = [number for number in (0, 1, 2) if is_open(number)]
        copies.close()
        os.close(lent)
        return low

    assert fork(child).result() == []


def test_copies_that_find_no_room(fork):
    """None stays."""

    def child():
        taken = []
        while len(taken) < 64 and not taken[1:]:
            taken.append(os.dup(1))
        with pytest.raises(cm.TableFull):
            DescriptorList.dup_of([1] * 64)
        return [is_open(number) for number in range(max(taken) + 1, 64)]

    assert not any(fork(child, table=64).result())


def test_what_was_received_moves_once(made):
    """The inbox has none left; what is in it later is not this list's."""
    inbox, came = ffi.new("struct cm_inbox *"), [each.detach() for each in made(3)]
    inbox.descriptors[0:3] = came
    inbox.count = 3
    received = DescriptorList()
    received.take_received(inbox)
    assert inbox.count == 0
    inbox.descriptors[0:3] = [-1, -1, -1]
    assert received.numbers() == came
    received.close()


def test_one_that_is_forgotten_is_closed(made):
    """Where Ctrl-C came before it could be handed on: by C, since Ctrl-C may end a finalizer too, or be lost in it."""
    some = DescriptorList.of(made(3))
    some.take(DescriptorList.of(made(2)))
    kept = some.steal(0)
    numbers = some.numbers()[1:]
    del some
    assert not any(map(is_open, numbers))
    assert is_open(kept.fileno())
    kept.close()


class Interrupt(BaseException):
    pass


@pytest.fixture
def interrupts():
    """interrupts(): an Interrupt is raised in a moment."""

    def raise_it(_number, _frame):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, raise_it)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.0005))
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_interrupted_at_any_step_each_has_one_owner(fork, interrupts, made):
    """Made, copied, moved, stolen, put together: afterwards all of it is closed, and nothing else."""

    def round_trip(keep):
        one = DescriptorList.of(keep)
        other = DescriptorList.dup_of(one.numbers())
        other.take(one)
        keep[:] = other.steal_all()
        again = DescriptorList.of(keep)
        again.steal(21).close()
        keep[:] = [again.steal(place) for place in range(20)]
        again.close()

    def child():
        warnings.simplefilter("ignore")
        # One that comes in a __del__ goes no further.
        sys.unraisablehook = lambda _: None
        interrupted = 0
        free = os.dup(0)
        os.close(free)
        for _ in range(1500):
            keep = made(20)
            try:
                interrupts()
                until = time.monotonic() + 0.005
                # Not `while ... < until`: under 3.13.0, what a signal raises there is not in the try block.
                while True:
                    if time.monotonic() >= until:
                        break
                    round_trip(keep)
            except Interrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            del keep
        gc.collect()
        assert reaper.wait(PATIENCE)
        again = os.dup(0)
        os.close(again)
        return again == free, interrupted > 1000

    assert fork(child).result() == (True, True)
