"""Memory for long records: nobody's view of one changes with the next, and what nobody views is used again."""

import contextlib
import errno
import gc

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand
from capmarshal._client import conversation as _conversation
from capmarshal._kernel.native import ffi
from capmarshal._protocol import room as _room
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

# More than any process has addresses.
TOO_MUCH = 1 << 47


def place_of(room):
    return int(ffi.cast("uintptr_t", room))


def test_small_room_is_used_again_when_nobody_views_it():
    """The same memory, one record after the other."""
    gc.collect()
    for least, most in ((200_000, 1 << 18), (300_000, 1 << 19), (600_000, 1 << 20), (1 << 20 | 1, 1 << 21)):
        room = _room.room_for(least)
        place = place_of(room)
        del room
        assert place_of(_room.room_for(most)) == place


def test_room_that_is_viewed_is_nobody_elses():
    """Not even when the room itself is forgotten: the view keeps it."""
    room = _room.room_for(200_000)
    room[0:3] = b"abc"
    view, place = memoryview(ffi.buffer(room, 3)), place_of(room)
    del room
    others = [_room.room_for(200_000) for _ in range(4)]
    assert place not in map(place_of, others)
    assert len(set(map(place_of, others))) == 4
    assert bytes(view) == b"abc"


@pytest.mark.parametrize("announced", [2, 1 << 17, (1 << 18) + 1])
def test_a_few_bytes_of_each_call_on_its_way_cost_no_more_than_was_announced(fork, announced):
    """Neither in huge pages nor in memory that larger calls have left behind; all may be begun at once."""
    count = 64
    with hand.bulk_process(fork) as (_, proxy), contextlib.ExitStack() as stack:
        capability = cm.capability(proxy)
        # Not run: of what is decoded there would be a copy.
        large = hand.call(capability, b"unknown", [bytes(1 << 20)])
        calling = stack.enter_context(by_hand.knock(capability))
        for number in range(count):
            near = stack.enter_context(by_hand.knock(capability))
            hand.send_long(calling, large)
            assert by_hand.failure(calling) is Code.UNKNOWN_METHOD
            if number == 0:
                before = proxy.state().rss
            near.send(hand.begin(announced, 0))
            near.send(hand.part(b"x"))
        assert proxy.state().rss - before < count * 2 * announced + (16 << 20)


def test_any_size_has_room():
    """From nothing to more than what is kept."""
    for size in (0, 1, 1 << 18, (1 << 18) + 1, 2 << 20, (2 << 20) + 1, 64 << 20):
        room = _room.room_for(size)
        assert len(room) >= size
        if size:
            room[size - 1] = b"x"


def test_no_memory_is_an_error_that_says_so():
    """Not an OSError of its own, nor a MemoryError."""
    with pytest.raises(cm.KernelError) as caught:
        _room.room_for(TOO_MUCH)
    assert caught.value.errno == errno.ENOMEM


def test_a_call_for_which_the_server_has_no_memory_is_refused(fork):
    """And the channel goes on."""
    with hand.bulk_process(fork, {"max_bytes": 2 * TOO_MUCH}) as (_, proxy):
        capability = cm.capability(proxy)
        with by_hand.knock(capability) as near:
            near.send(hand.begin(TOO_MUCH, 0))
            fault, _ = by_hand.answer(near)
            assert fault.code is Code.TOO_BIG
            assert "Cannot allocate memory" in fault.message
            near.send(hand.call(capability, b"size", [b"abc"], id=2))
            assert isinstance(by_hand.answer(near)[0], _wire.Reply)


def test_an_answer_for_which_the_client_has_no_memory_is_an_error(impostor, monkeypatch):
    """And the channel, on which the rest of it would come, is not used again."""
    monkeypatch.setattr(_conversation, "RESULT_BYTES_MAX", 2 * TOO_MUCH)
    thread = by_hand.Concurrent(impostor.capability.cast(hand.Bulk).make, 1, 0)
    with impostor.accept() as channel:
        channel.recv(4096)
        channel.send(hand.begin(TOO_MUCH, 0))
        with pytest.raises(cm.KernelError) as caught:
            thread.outcome()
        assert caught.value.errno == errno.ENOMEM
        assert channel.recv(4096) == b""
