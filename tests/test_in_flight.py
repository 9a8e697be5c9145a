"""ETOOMANYREFS: senders wait for the queue to drain; at the deadline they say whose limit it was."""

from __future__ import annotations

import os
import resource
import threading

import pytest

import awaiting
import by_hand
import capmarshal as cm
import matrix
from capmarshal._server import answers
from jam import LIMIT, Jam, as_ordinary, count_open, says_whose_limit, surplus
from patience import PATIENCE


def test_an_argument_waits_until_the_queue_drains(fork):
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

    assert as_ordinary(fork, client)


def test_a_knock_waits_until_the_queue_drains(fork):
    """So does the first call, whose knock carries the channel."""

    def client():
        with by_hand.serving() as capability, Jam() as jam:
            draining = threading.Timer(0.1, jam.drain)
            draining.start()
            with cm.timeout(PATIENCE):
                doubled = capability.cast(by_hand.Work).double(4)
            draining.join()
            return doubled

    assert as_ordinary(fork, client) == 8


@pytest.mark.parametrize("first", [True, False], ids=["knock", "argument"])
def test_at_the_deadline_it_says_whose_limit_it_was(fork, first):
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
            words = says_whose_limit(caught.value)
            # Its traceback keeps the event loop of its call, where that had one.
            del caught
            awaiting.collect()
            after = surplus(before)
            with cm.timeout(PATIENCE):
                assert proxy.count([file]) == 1
            return words, after

    assert as_ordinary(fork, client) == (True, 0)


def test_a_result_waits_until_the_queue_drains(fork):
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

    assert as_ordinary(fork, client) == (2, 0)


@matrix.one_call_a_channel
def test_a_result_that_was_parked_for_another_reason_waits_too(fork):
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

    assert as_ordinary(fork, client) == (3, 2)


def test_a_result_that_never_fits_is_given_up(fork, monkeypatch):
    """A server does not keep it for ever: its caller is told, or has gone; nothing stays open."""

    # The patience of ten seconds is for people; the way it ends is the same after a tenth.
    monkeypatch.setattr(answers, "IN_FLIGHT_PATIENCE", 100_000_000)

    def client():
        with by_hand.serving() as capability, cm.timeout(PATIENCE):
            proxy = capability.cast(by_hand.Work)
            assert proxy.double(1) == 2
            before = count_open()
            with Jam(), pytest.raises(cm.TooManyInFlight) as caught:
                proxy.pipes(2)
            words = says_whose_limit(caught.value)
            assert proxy.double(2) == 4
            return words, surplus(before)

    assert as_ordinary(fork, client) == (True, 0)


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
