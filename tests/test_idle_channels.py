"""A server that needs room gives idle channels up, with a last word: nothing is lost, and nothing runs twice."""

from __future__ import annotations

import contextlib
import select
import time

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand
from capmarshal._capabilities.capability import open_door_of
from capmarshal._protocol import wire as _wire
from patience import until

PATIENCE = hand.PATIENCE


@pytest.fixture
def proxy(fork):
    with hand.bulk_process(fork) as (_, made), cm.timeout(PATIENCE):
        yield made


def full(near, capability):
    """Asks, on a channel by hand, for a table without room; that channel is then the one used last."""
    near.send(hand.call(capability, b"soft_limit", [0]))
    by_hand.answer(near)


def roomy(near, capability):
    near.send(hand.call(capability, b"soft_limit", [-1], id=99))
    by_hand.answer(near)


@contextlib.contextmanager
def cushion(capability):
    """Channels that go before those made or used later: knocking may cost more than one, as closing takes its time."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(by_hand.knock(capability)) for _ in range(12)]
        assert all(hand.lives(each, capability) for each in made)
        yield


def knock_until_taken(capability, near):
    """A channel, by however many knocks; each that finds no room makes some."""

    def taken():
        made = by_hand.knock(capability)
        try:
            return made if hand.lives(made, capability) else None
        except (AssertionError, ConnectionResetError, BrokenPipeError):
            made.close()
            return None

    return until(taken)


def test_the_last_word_of_an_idle_channel_is_gone(proxy):
    """The one that was not used for longest hears GONE and then the end; those used since live on."""
    capability = cm.capability(proxy)
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(by_hand.knock(capability)) for _ in range(12)]
        assert all(hand.lives(each, capability) for each in channels)
        *_, third, near = channels
        proxy.run()
        assert hand.lives(third, capability)
        full(near, capability)
        stack.enter_context(knock_until_taken(capability, near))
        record, _ = by_hand.answer(channels[0])
        assert isinstance(record, _wire.Gone)
        assert by_hand.ended(channels[0])
        roomy(near, capability)
        assert hand.lives(third, capability)


def test_a_client_whose_channel_was_given_up_does_not_notice(proxy):
    """Its next call goes by a new channel, and runs once."""
    capability = cm.capability(proxy)
    runs = proxy.run()
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(by_hand.knock(capability)) for _ in range(10)]
        assert all(hand.lives(each, capability) for each in channels)
        near = channels[-1]
        full(near, capability)
        knock_until_taken(capability, near).close()
        roomy(near, capability)
        (channel,) = open_door_of(capability).idle
        assert select.select([channel.near], [], [], 0)[0], "it was not given up"
        assert proxy.run() == runs + 1


@pytest.mark.parametrize("how", ["data", "descriptors", "long", "many descriptors"])
def test_a_call_that_crosses_the_last_word_runs_once(proxy, how, until):
    """It waits unread in the channel that is given up: it is made again on another, and nothing of it is lost."""
    capability = cm.capability(proxy)
    with by_hand.pipe() as (reader, _writer), cm.Descriptor.dup_of(reader) as one:
        arguments = {
            "data": (b"x", []),
            "descriptors": (b"x", [one]),
            "long": (bytes(1 << 20), []),
            "many descriptors": (b"x", [one] * 300),
        }[how]
        for _ in range(5):
            runs = proxy.run()
            with cushion(capability), by_hand.knock(capability) as near, busy(near, capability) as go:
                # When the server comes back it finds the knocks first, and no room.
                with contextlib.ExitStack() as knocks:
                    for _ in range(7):
                        knocks.enter_context(by_hand.knock(capability))
                    calling = by_hand.Concurrent(_patiently, proxy.check, *arguments)
                    until(lambda: not open_door_of(capability).idle)
                    go.close()
                    by_hand.answer(near)
                    roomy(near, capability)
                    _, inodes = calling.outcome()
                    assert len(inodes) == len(arguments[1])
            # block, check, and run itself
            assert proxy.run() == runs + 3


@contextlib.contextmanager
def busy(near, capability, spare=2):
    """The server runs a call of ``near`` until the yielded file is closed, and has room for so many descriptors."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        near.send(hand.call(capability, b"soft_limit", [spare + 2]))
        by_hand.answer(near)
        by_hand.send(near, hand.call(capability, b"block", [b"", 0, 1], 2, id=3), [began.fileno(), going.fileno()])
        assert started.read(1) == b"."
        yield go


def _patiently(call, *arguments):
    """Makes a call, and again if its descriptors found no room: it did not run then."""
    with cm.timeout(PATIENCE):
        while True:
            with contextlib.suppress(cm.DescriptorsLost):
                return call(*arguments)


def test_a_call_by_hand_that_crosses_the_last_word_was_not_read(proxy):
    """What the client sees of it: a reset, for its call was left unread, and GONE; the call did not run."""
    capability = cm.capability(proxy)
    give_up = time.monotonic() + by_hand.PATIENCE
    while time.monotonic() < give_up:
        with by_hand.knock(capability) as old:
            assert hand.lives(old, capability)
            runs = proxy.run()
            # The first knock takes the place of the channel that is not used for longest: turns are dealt, and the
            # second would be too late.
            with cushion(capability), by_hand.knock(capability) as near, busy(near, capability, 0) as go:
                with contextlib.ExitStack() as knocks:
                    for _ in range(7):
                        knocks.enter_context(by_hand.knock(capability))
                    old.send(hand.call(capability, b"run", [], id=2))
                    go.close()
                    by_hand.answer(near)
                    roomy(near, capability)
            seen = []
            while not seen or seen[-1] not in (None, _wire.Reply):
                try:
                    record, _ = by_hand.answer(old)
                    seen.append(None if record is None else type(record))
                except ConnectionResetError:
                    seen.append("reset")
        if seen[-1] is None:
            # The reset comes when the server's end is closed, which may be before we look or after.
            assert sorted(seen[:-1], key=str) == [_wire.Gone, "reset"]
            assert proxy.run() == runs + 2
            return
        # Read before the channel was needed: it was no crossing.
        assert proxy.run() == runs + 3
    pytest.fail("the server always came to the call first")


def test_a_new_channel_is_not_the_idlest(proxy):
    """One whose call is about to come is not given up for the next knock, as long as there are older ones."""
    capability = cm.capability(proxy)
    with cushion(capability), by_hand.knock(capability) as near, busy(near, capability) as go:
        with contextlib.ExitStack() as knocks:
            # The first two find room in any case; some of the others do not.
            made = [knocks.enter_context(by_hand.knock(capability)) for _ in range(7)]
            go.close()
            by_hand.answer(near)
            assert [hand.lives(each, capability) for each in made[:2]] == [True, True]
            roomy(near, capability)


def test_a_channel_in_use_is_not_given_up(proxy):
    """One whose long call is under way, and one whose long reply is, live on while idle ones go."""
    capability = cm.capability(proxy)
    with by_hand.knock(capability) as calling, by_hand.knock(capability) as replying:
        record = hand.call(capability, b"size", [bytes(300_000)], id=3)
        sent = list(hand.pieces(record, call_id=3))
        for data, _, _ in sent[:3]:
            calling.send(data)
        replying.send(hand.call(capability, b"make", [300_000, 0], id=2))
        # These two are the oldest; all others are idle.
        with cushion(capability), by_hand.knock(capability) as near:
            full(near, capability)
            for _ in range(3):
                knock_until_taken(capability, near).close()
            roomy(near, capability)
        for data, _, _ in sent[3:]:
            calling.send(data)
        answer, _ = by_hand.answer(calling)
        assert isinstance(answer, _wire.Reply)
        answer, _ = hand.long_answer(replying)
        assert isinstance(answer, _wire.Reply)
