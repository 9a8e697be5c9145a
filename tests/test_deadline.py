"""Deadlines: how they nest, and that each thread, context and server method has its own."""

import contextlib
import contextvars
import datetime as dt
import fractions
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import capmarshal as cm
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER, NOW

PATIENCE = 30.0


class Asker(cm.Interface):
    """Tells what its server's deadline is, and hands the question on."""

    @cm.method
    def left(self) -> float | None: ...
    @cm.method
    def ask(self, other: "Asker") -> float | None: ...


class AskerServer(Asker):
    def left(self) -> float | None:
        deadline = _deadline.current.get()
        return None if deadline == FOREVER else (deadline - time.monotonic_ns()) / 1e9

    def ask(self, other: Asker) -> float | None:
        return other.left()


def _left():
    deadline = _deadline.current.get()
    return math.inf if deadline == FOREVER else (deadline - time.monotonic_ns()) / 1e9


def test_there_is_no_limit_unless_somebody_sets_one():
    """Outside of every block, calls may take for ever."""
    assert _deadline.current.get() == FOREVER


def test_a_block_sets_the_limit_and_takes_it_back():
    """The limit holds within the block, and not after it, also where the block raises."""
    with cm.timeout(100):
        assert 99 < _left() <= 100
    assert _deadline.current.get() == FOREVER
    with pytest.raises(ZeroDivisionError), cm.timeout(100):
        raise ZeroDivisionError
    assert _deadline.current.get() == FOREVER


@given(st.lists(st.floats(1, 1e12) | st.just(math.inf) | st.integers(1, 10**6), max_size=6))
def test_in_nested_blocks_the_earliest_deadline_holds(seconds):
    """An inner block can only shorten what is left; leaving it brings the outer limit back."""
    blocks, limits = [], [FOREVER]
    for wanted in seconds:
        block = cm.timeout(wanted)
        start = time.monotonic_ns()
        block.__enter__()
        blocks.append(block)
        deadline = _deadline.current.get()
        assert deadline <= limits[-1]
        if wanted * 1e9 > (1 << 62):
            assert deadline == limits[-1]
        else:
            assert deadline >= min(limits[-1], start + int(wanted * 1e9))
        limits.append(deadline)
    for block in reversed(blocks):
        assert _deadline.current.get() == limits.pop()
        block.__exit__(None, None, None)
    assert _deadline.current.get() == FOREVER


def test_one_object_can_be_entered_again_within_itself():
    """Each entry counts its seconds anew, and the earlier deadline holds."""
    limit = cm.timeout(100)
    with limit:
        first = _deadline.current.get()
        with limit:
            assert _deadline.current.get() == first
        assert _deadline.current.get() == first
    assert _deadline.current.get() == FOREVER


def _bounded(seconds):
    """A generator that is within a block while it waits."""
    with cm.timeout(seconds):
        yield


def test_blocks_that_end_out_of_order_end_their_own_only():
    """Two generators, as a pipeline or a test's fixtures are: the first to begin is the first to end."""
    first, second = _bounded(100), _bounded(50)
    next(first)
    next(second)
    assert 49 < _left() <= 50
    first.close()
    assert 49 < _left() <= 50
    second.close()
    assert _deadline.current.get() == FOREVER


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_blocks_may_end_in_any_order(seconds, random):
    """After each end, the earliest of those that have not ended holds; at last none does."""
    blocks = [(each, _bounded(each)) for each in seconds]
    for _, block in blocks:
        next(block)
    random.shuffle(blocks)
    while blocks:
        assert min(each for each, _ in blocks) - 1 < _left() <= min(each for each, _ in blocks)
        blocks.pop()[1].close()
    assert _deadline.current.get() == FOREVER


def test_an_expired_block_that_ends_late_leaves_nothing_behind():
    """The whole thread stayed expired, for ever: every call that it made failed."""
    with cm.Entrypoint("late") as entrypoint:
        asker = entrypoint.manage(AskerServer()).cast(Asker)
        expired, later = _bounded(0), _bounded(100)
        next(expired)
        next(later)
        expired.close()
        later.close()
        assert asker.left() is None


@pytest.mark.parametrize("elsewhere", [contextvars.Context, contextvars.copy_context])
def test_a_block_that_ends_in_another_context_ends(elsewhere):
    """A generator is closed by whoever drops it last, or by the garbage collector, in any thread."""
    with cm.Entrypoint("elsewhere") as entrypoint:
        asker = entrypoint.manage(AskerServer()).cast(Asker)
        block = _bounded(0)
        next(block)
        with pytest.raises(cm.CallTimeout):
            asker.left()
        elsewhere().run(block.close)
        assert asker.left() is None
        with cm.timeout(100):
            assert 99 < asker.left() <= 100
        assert _deadline.after(None) == FOREVER


def test_a_block_may_end_while_a_call_inline_has_its_own_limit():
    """A handler closes the generator of its caller: the limit that the call hid is gone when the call is over."""

    class Closing(cm.Interface):
        @cm.method
        def close(self) -> None: ...
        @cm.method
        def close_inline(self) -> int: ...

    class ClosingServer(Closing):
        def close(self) -> None:
            self.block.close()

        def close_inline(self) -> int:
            self.block = _bounded(50)
            next(self.block)
            self.inline.close()
            return _deadline.after(None)

    with cm.Entrypoint("inline") as entrypoint:
        server = ClosingServer()
        server.inline = entrypoint.manage(server).cast(Closing)
        assert server.inline.close_inline() == FOREVER


def test_the_seconds_count_from_entering():
    """Not from when the object was made."""
    limit = cm.timeout(100)
    before = time.monotonic_ns()
    with limit:
        assert _deadline.current.get() >= before + 100 * 10**9


def test_zero_means_do_not_wait():
    """As everywhere else in Python; and nothing within that block waits either."""
    with cm.timeout(0):
        assert _deadline.current.get() == NOW
        with cm.timeout(100):
            assert _deadline.current.get() == NOW


@pytest.mark.parametrize("seconds", [-1, -0.001, -math.inf, math.nan])
def test_what_is_no_duration_is_refused(seconds):
    """A negative number, as of a deadline that has passed, is the caller's mistake: 0 is how to say that."""
    with pytest.raises(ValueError, match="0 or more"):
        cm.timeout(seconds)
    with pytest.raises(ValueError, match="0 or more"):
        _deadline.after(seconds)


@pytest.mark.parametrize("seconds", ["1", [1], 1j, dt.timedelta(1), True, False])
def test_what_is_no_number_is_refused(seconds):
    """And the error says what is wanted."""
    with pytest.raises(TypeError, match="a number of seconds, 0 or more, or None for no limit, not "):
        cm.timeout(seconds)
    with pytest.raises(TypeError, match="a number of seconds, 0 or more, or None for no limit, not "):
        _deadline.after(seconds)


def test_none_is_a_block_without_a_limit_of_its_own():
    """So that a program may have the seconds from its own options; the limit outside of it holds."""
    with cm.timeout(None):
        assert _deadline.current.get() == FOREVER
    with cm.timeout(100), cm.timeout(None):
        assert 99 < _left() <= 100
        with cm.timeout(50):
            assert 49 < _left() <= 50


@pytest.mark.parametrize("seconds", [1, 1.5, fractions.Fraction(3, 2)])
def test_any_real_number_is_a_duration(seconds):
    """int, float, Fraction."""
    with cm.timeout(seconds):
        assert 0 < _left() <= seconds


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 10**30, 10**400])
def test_a_very_long_time_is_for_ever(seconds):
    """It does not overflow the 64 bits that C has for it."""
    with cm.timeout(seconds):
        assert _deadline.current.get() == FOREVER


def test_none_leaves_it_to_the_block():
    """What takes a timeout of its own takes None for the limit in force."""
    assert _deadline.after(None) == FOREVER
    with cm.timeout(100):
        assert _deadline.after(None) == _deadline.current.get()
        assert _deadline.after(1000) == _deadline.current.get()
        assert _deadline.after(1) < _deadline.current.get()


def test_threads_have_limits_of_their_own():
    """A block in one thread does not bound another, not even with the same object, entered and left crosswise."""
    limit = cm.timeout(100)
    entered, leave, seen = threading.Event(), threading.Event(), []

    def other():
        seen.append(_deadline.current.get())
        with limit:
            seen.append(_left())
            entered.set()
            assert leave.wait(PATIENCE)
        seen.append(_deadline.current.get())

    thread = threading.Thread(target=other)
    with limit:
        thread.start()
        assert entered.wait(PATIENCE)
    # We entered first and have left first.
    assert _deadline.current.get() == FOREVER
    leave.set()
    thread.join(PATIENCE)
    assert seen[0] == FOREVER
    assert 0 < seen[1] <= 100
    assert seen[2:] == [FOREVER]


def test_a_copied_context_keeps_the_limit():
    """As tasks do: what is started in the block is bounded by it."""
    with cm.timeout(100):
        context = contextvars.copy_context()
    assert 0 < context.run(_left) <= 100


@contextlib.contextmanager
def _askers():
    """Proxies of two objects in entrypoints of their own."""
    with cm.Entrypoint("one") as one, cm.Entrypoint("two") as two:
        yield one.manage(AskerServer()).cast(Asker), two.manage(AskerServer()).cast(Asker)


def test_a_server_method_has_the_time_that_is_left_to_its_caller():
    """And none of its own: without a limit at the client there is none at the server."""
    with _askers() as (asker, _):
        assert asker.left() is None
        with cm.timeout(100):
            assert 0 < asker.left() <= 100
        assert asker.left() is None


def test_a_nested_call_has_what_is_left():
    """The limit goes on to the servers that the server calls."""
    with _askers() as (asker, other):
        with cm.timeout(100):
            assert 0 < asker.ask(other) <= 100
        assert asker.ask(other) is None


def test_a_call_inline_has_what_is_left():
    """Also to an object of the same entrypoint, which is called in the same thread."""
    with _askers() as (asker, _), cm.timeout(100):
        assert 0 < asker.ask(asker) <= 100


def test_with_no_time_left_the_call_is_not_made():
    """CallTimeout, at once, and it says that the method did not run."""
    with _askers() as (asker, _):
        with cm.timeout(0), pytest.raises(cm.CallTimeout) as caught:
            asker.left()
        assert caught.value.ran == "no"


def test_remaining_says_how_long_it_is():
    """Seconds, in a block; infinite where there is no limit, and never less than 0."""
    assert cm.remaining() == math.inf
    with cm.timeout(100):
        assert 99 < cm.remaining() <= 100
    with cm.timeout(1e-9):
        assert cm.remaining() == 0.0
    with cm.timeout(0):
        assert cm.remaining() == 0.0
    assert cm.remaining() == math.inf
