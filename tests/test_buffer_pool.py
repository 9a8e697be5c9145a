"""BufferPool: lending, waiting, and its end."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import re
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import by_hand
import capmarshal as cm
from full_table import fill
from interrupting import Interrupting
from patience import PATIENCE

POOL = [Path(cm.__file__).parent / "_descriptors/buffer_pool.py"]


def test_what_is_taken_is_empty_at_first_and_then_as_it_was_left():
    """Nobody pays for zeroing what will be overwritten."""
    with cm.BufferPool(1, (2, 2), "f") as pool:
        with pool.take() as buffer, buffer.view() as view:
            assert bytes(view) == bytes(16)
            view[:4] = b"left"
        with pool.take() as buffer, buffer.view() as view:
            assert bytes(view) == b"left" + bytes(12)


def test_as_many_are_lent_as_there_are_and_the_next_waits():
    """Until one of them is let go of; each is another memory."""
    with cm.BufferPool(3, 5) as pool:
        taken = [pool.take(0) for _ in range(3)]
        for place, buffer in enumerate(taken):
            np.asarray(buffer)[:] = place
        assert [bytes(buffer.view()) for buffer in taken] == [bytes([place] * 5) for place in range(3)]
        waiting = by_hand.Concurrent(pool.take, PATIENCE)
        taken[1].close()
        again = waiting.outcome()
        assert bytes(again.view()) == b"\1" * 5
        for buffer in (*taken, again):
            buffer.close()


def test_a_timeout_says_who_holds_them():
    """And whose time was up."""
    with cm.BufferPool(1, 5) as pool, pool.take():
        with pytest.raises(
            cm.CallTimeout, match=r"came back in 0\.01 s: all 1 are held by those who received"
        ) as caught:
            pool.take(0.01)
        assert caught.value.ran == "no"
        with cm.timeout(0.01), pytest.raises(cm.CallTimeout, match=r"before the deadline of cm\.timeout\(0\.01\)"):
            pool.take()
        with pytest.raises(ValueError, match="0 or more"):
            pool.take(-1)


def test_an_array_of_the_lender_counts_too():
    """Who still writes to it has not let go."""
    with cm.BufferPool(1, 5) as pool:
        with pool.take() as buffer:
            written = np.asarray(buffer)
        with pytest.raises(cm.CallTimeout):
            pool.take(0)
        del written
        pool.take(PATIENCE).close()


def test_closing_wakes_who_waits_and_leaves_what_is_lent():
    """Whoever waits in any thread is told; what is lent stays with those who have it."""
    pool = cm.BufferPool(1, 5)
    buffer = pool.take()
    waiting = [by_hand.Concurrent(pool.take) for _ in range(3)]
    pool.close()
    for thread in waiting:
        with pytest.raises(cm.Closed, match="make another"):
            thread.outcome()
    pool.close()
    assert pool.closed
    with pytest.raises(cm.Closed):
        pool.take()
    with buffer, buffer.view() as view:
        view[:] = b"12345"
        assert bytes(np.asarray(buffer)) == b"12345"


def test_threads_never_get_the_same_one():
    """What one has taken, another gets after it has let go."""
    with cm.BufferPool(2, 8, "B") as pool:

        def use(mark):
            for _ in range(50):
                with pool.take(PATIENCE) as buffer, buffer.view() as view:
                    view[:] = bytes([mark] * 8)
                    assert bytes(view) == bytes([mark] * 8)

        threads = [by_hand.Concurrent(use, mark) for mark in range(4)]
        for thread in threads:
            thread.outcome()


def test_a_forked_child_has_none_of_it(fork):
    """Nor does it keep the pool from lending what the child never had."""
    with cm.BufferPool(1, 5) as pool:
        pool.take().close()
        go, stop = os.pipe()
        back, told = os.pipe()

        def live():
            os.close(stop)
            with pytest.raises(cm.Closed, match="the process that this one was forked from"):
                pool.take(0)
            assert pool.closed
            pool.close()
            os.write(told, b"x")
            os.read(go, 1)

        child = fork(live)
        assert os.read(back, 1) == b"x"
        pool.take(PATIENCE).close()
        with pool.take(PATIENCE) as buffer, buffer.view() as view:
            view[:] = b"12345"
        os.close(stop)
        child.result()
        for number in (go, back, told):
            os.close(number)


def test_without_room_in_the_table_nothing_is_lost(fork):
    """At whatever step: the error says so, and the buffer is lent when there is room again."""

    def take():
        with cm.BufferPool(1, 5) as pool:
            pool.take().close()
            full = fill(0)
            room = len(full)
            for _ in range(8):
                try:
                    pool.take().close()
                    break
                except cm.TableFull:
                    os.close(full.pop())
            # Room for the three that a buffer takes, of which the pool's end of the lease before is one.
            assert room - len(full) == 2
            for number in full:
                os.close(number)
            pool.take().close()

    fork(take, table=64).result()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0, 5), ValueError, "1 or more buffers, .*not 0"),
        (("2", 5), TypeError, "1 or more buffers, .*not '2'"),
        ((True, 5), TypeError, "1 or more buffers, .*not True"),
        # Swapped.
        ((64 << 20, 3), ValueError, "1048576 at most, not 67108864"),
        ((1, 0), ValueError, "1 byte or more"),
        ((1, (3, 0), "d"), ValueError, "1 byte or more"),
        ((1, 5, "O"), ValueError, "bool, integers"),
        ((1, None), TypeError, "a size is a number of bytes"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_in_words(arguments, error, words):
    """Nothing is made."""
    with pytest.raises(error, match=words):
        cm.BufferPool(*arguments)


def test_what_is_forgotten_is_named():
    """A buffer's memory and its lease; a pool's memory."""
    pool = cm.BufferPool(1, 5)
    with pytest.warns(ResourceWarning) as caught:
        pool.take()
    words = sorted(str(warning.message) for warning in caught)
    assert re.fullmatch(r"unclosed <lease of a SharedBuffer, .*unclosed <memory of a Dataspace, .*", " ".join(words))
    with pytest.warns(ResourceWarning, match="unclosed <memory of .* or BufferPool, "):
        del pool


def test_taking_in_a_signal_handler_does_not_wait_for_its_own_thread():
    """The lock is its own."""
    with cm.BufferPool(2, 5) as pool, pool._lock:
        with pool.take(0):
            assert threading.active_count() >= 1


@pytest.mark.parametrize("again", [copy.copy, pickle.dumps])
def test_a_pool_is_neither_copied_nor_pickled(again):
    """Two would lend the same memory to two."""
    with cm.BufferPool(1, 5) as pool, pytest.raises(TypeError, match="neither copied nor pickled"):
        again(pool)


class Meanwhile(Interrupting):
    """A signal handler that does something at the n-th place, and returns."""

    class _Done(Exception):
        pass

    def __init__(self, at, do):
        super().__init__(at, lambda: do() or self._Done(), POOL)

    def _note(self, *event):
        with contextlib.suppress(self._Done):
            super()._note(*event)


def _swept(interrupted):
    """Has all of a pool's buffers taken, let go of, and taken again after an interruption, at each place."""
    # What Ctrl-C keeps from being returned is found unclosed.
    warnings.simplefilter("ignore", ResourceWarning)
    at = 0
    while True:
        with cm.BufferPool(2, 1) as pool:
            for buffer in [pool.take(0), pool.take(0)]:
                buffer.close()
            where, held = interrupted(pool, at)
            while len(held) < 2:
                held.append(pool.take(PATIENCE))
            with pytest.raises(cm.CallTimeout):
                pool.take(0)
            assert len({os.fstat(buffer.fileno()).st_ino for buffer in held}) == 2, where
            for buffer in held:
                buffer.close()
        if not where:
            return at
        at += 1


def test_ctrl_c_between_two_steps_of_taking_loses_no_buffer(fork):
    """All that there are can be taken afterwards, and each by one."""

    def interrupted(pool, at):
        interrupting = Interrupting(at, KeyboardInterrupt, POOL)
        held = []
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            held.append(pool.take(0))
        return interrupting.where, held

    assert fork(lambda: _swept(interrupted)).result() > 10


def test_a_signal_handler_that_takes_in_the_middle_of_taking_gets_another(fork):
    """Nor is what it holds lent to anybody else."""

    def interrupted(pool, at):
        held = []
        meanwhile = Meanwhile(at, lambda: held.append(pool.take(0)))
        with meanwhile:
            held.append(pool.take(0))
        return meanwhile.where, held

    assert fork(lambda: _swept(interrupted)).result() > 10


def test_ctrl_c_between_two_steps_of_waiting_leaves_nobody_waiting(fork):
    """A pool that is closed afterwards has closed what it waits at, too."""

    def sweep():
        at = 0
        while True:
            with cm.BufferPool(1, 1) as pool, pool.take(0):
                interrupting = Interrupting(at, KeyboardInterrupt, POOL)
                with contextlib.suppress(KeyboardInterrupt, cm.CallTimeout), interrupting:
                    pool.take(0)
            assert pool._hangups.number < 0, interrupting.where
            if not interrupting.where:
                return at
            at += 1

    assert fork(sweep).result() > 10
