"""What is to be done at a certain time, by a loop that asks when that is."""

import time

import pytest

from capmarshal._kernel.native import FOREVER
from capmarshal._server.timers import Again, Timers


def test_nothing_is_due_when_there_is_nothing():
    """A loop may sleep for ever."""
    timers = Timers()
    timers.run()
    assert timers.next == FOREVER


def test_what_is_due_is_called_once_and_in_its_order():
    """And what is not due yet is not."""
    timers, called = Timers(), []
    timers.after(1_000_000, lambda: called.append("second"))
    timers.after(10**15, lambda: called.append("never"))
    timers.after(0, lambda: called.append("first"))
    while time.monotonic_ns() < timers.next + 2_000_000:
        pass
    timers.run()
    timers.run()
    assert called == ["first", "second"]
    assert FOREVER > timers.next > time.monotonic_ns() + 10**14


def test_what_puts_itself_off_is_left_for_the_next_time():
    """Else a timer of no time would keep the loop for ever."""
    timers, called = Timers(), []

    def again():
        called.append(len(called))
        timers.after(0, again)

    timers.after(0, again)
    timers.run()
    assert called == [0]
    timers.run()
    assert called == [0, 1]


def test_what_goes_wrong_is_not_tried_again_and_the_others_come_next():
    """An error is told to whoever runs them, once."""
    timers, called = Timers(), []

    def wrong():
        called.append("wrong")
        raise ZeroDivisionError

    timers.after(0, wrong)
    timers.after(0, lambda: called.append("other"))
    with pytest.raises(ZeroDivisionError):
        timers.run()
    assert called == ["wrong"]
    assert timers.next <= time.monotonic_ns()
    timers.run()
    assert (called, timers.next) == (["wrong", "other"], FOREVER)


def test_what_ctrl_c_interrupts_is_done_again():
    """It may not have begun."""
    timers, called = Timers(), []

    def interrupted_once():
        called.append("")
        if len(called) == 1:
            raise KeyboardInterrupt

    timers.after(0, interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        timers.run()
    assert timers.next <= time.monotonic_ns()
    timers.run()
    assert (len(called), timers.next) == (2, FOREVER)


class _Owner:
    """Who keeps what is done again, and is not kept by it."""

    def __init__(self, results, do):
        self._results, self._do = results, do

    def do(self):
        """What is done."""
        return self._do(self._results)


def test_what_is_needed_is_done_again_and_again():
    """Once each time, however often it is begun meanwhile; and what was needed no more can be begun anew."""
    timers, needed = Timers(), [True, True, False]
    owner = _Owner(needed, lambda needed: needed.pop(0))
    again = Again(timers, 0, owner.do)
    again.begin()
    again.begin()
    for left in (2, 1, 0):
        timers.run()
        assert len(needed) == left
    assert timers.next == FOREVER
    needed.append(False)
    again.begin()
    timers.run()
    assert needed == []


def test_what_is_done_again_goes_on_where_it_goes_wrong():
    """An error is told once; what else waits for it does not wait for ever."""
    timers, results = Timers(), [1, 0]
    owner = _Owner(results, lambda results: 1 / results.pop() > 1)
    again = Again(timers, 0, owner.do)
    again.begin()
    with pytest.raises(ZeroDivisionError):
        timers.run()
    timers.run()
    assert (results, timers.next) == ([], FOREVER)


def test_what_was_to_be_done_again_is_not_when_its_owner_has_gone():
    """Nor does it keep its owner, whose timer it is."""
    timers, results = Timers(), [True]
    owner = _Owner(results, lambda results: results.pop())
    again = Again(timers, 0, owner.do)
    again.begin()
    del owner
    timers.run()
    assert (results, timers.next) == ([True], FOREVER)


def test_a_loop_that_has_ended_for_good_has_nothing_to_do():
    """What it was to do is forgotten, with all that this refers to; and what comes later."""
    timers, called = Timers(), []
    timers.after(0, lambda: called.append(1))
    timers.end()
    timers.after(0, lambda: called.append(2))
    timers.run()
    assert (called, timers.next) == ([], FOREVER)
