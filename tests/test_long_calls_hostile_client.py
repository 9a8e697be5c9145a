"""Long calls by hand: what a hostile client can do with parts, and that it costs nobody else anything."""

from __future__ import annotations

import contextlib
import os
import socket

import msgspec
import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

begin, part, go, call = hand.begin, hand.part, hand.go, hand.call
PATIENCE = hand.PATIENCE


@pytest.fixture
def server(fork):
    with hand.bulk_process(fork) as (child, proxy):
        yield child, proxy


@pytest.fixture
def proxy(server):
    """The server's; whatever a test did, another client is served after it, and nothing stays open there."""
    _, made = server
    before = made.state().open
    yield made
    with cm.timeout(PATIENCE):
        assert made.size(b"abc") == 3
        # The test's own channel has just been closed, and the server may not have come to that.
        while (after := made.state()).open > before:
            pass
        assert after.open == before


@pytest.fixture
def capability(proxy):
    return cm.capability(proxy)


@pytest.fixture
def near(capability):
    with by_hand.knock(capability) as channel:
        yield channel


def test_a_long_call_by_hand_is_answered(near, capability, files):
    """The measure of all below: 600 descriptors and 300,000 bytes, each once."""
    numbers = files(600)
    data = hand.pattern(300_000)
    hand.send_long(near, call(capability, b"check", [data, list(range(600))], 600), numbers)
    record, _ = by_hand.answer(near)
    _, inodes = msgspec.msgpack.decode(record.payload)
    assert inodes == [os.fstat(number).st_ino for number in numbers]
    assert hand.lives(near, capability)


@pytest.mark.parametrize("call_id", [0, 1, 7, (1 << 64) - 1])
@pytest.mark.parametrize("count", [0, 2])
def test_a_part_of_nothing_ends_the_channel(near, writer, call_id, count):
    """Without a BEGIN there is no call that a PART could belong to."""
    by_hand.send(near, part(b"x", count, call_id), [writer.fileno()] * count)
    assert by_hand.ended(near)


@pytest.mark.parametrize(
    ("size", "descriptors", "records"),
    [
        (10, 0, [(b"12345678901", 0)]),
        (10, 0, [(b"1234567890", 1)]),
        (10, 2, [(b"12", 3)]),
        (10, 2, [(b"12", 1), (b"34", 2)]),
        (10, 2, [(b"12", 2), (b"34", 1)]),
        (0, 0, [(b"1", 0)]),
        (0, 0, [(b"", 1)]),
        (0, 1, [(b"", 2)]),
        (1 << 20, 1000, [(b"1", 253), (b"2" * 1000, 253), (b"3", 253), (b"4", 253)]),
    ],
)
def test_more_than_was_announced_ends_the_channel(near, writer, size, descriptors, records):
    """More bytes or descriptors than the BEGIN said: the channel ends, and all that came is closed."""
    near.send(begin(size, descriptors))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for data, count in records:
            by_hand.send(near, part(data, count), [writer.fileno()] * count)
    while True:
        try:
            record, _ = by_hand.answer(near)
        except ConnectionResetError:
            break
        if record is None:
            break
        assert isinstance(record, _wire.Go)


@pytest.mark.parametrize(("said", "sent"), [(1, 0), (0, 1), (2, 1), (1, 253)])
def test_a_part_that_lies_about_its_descriptors_ends_the_channel(near, writer, said, sent):
    """Fewer or more than its head says, though the BEGIN would have allowed it."""
    near.send(begin(1000, 500))
    by_hand.send(near, part(b"x", said), [writer.fileno()] * sent)
    assert by_hand.ended(near)


def test_an_empty_part_ends_the_channel(near, writer):
    """A part with neither bytes nor descriptors gets nobody further, and could go on for ever."""
    near.send(begin(10, 1))
    by_hand.send(near, part(b"123", 1), [writer.fileno()])
    hand.await_go(near)
    near.send(part())
    assert by_hand.ended(near)


@pytest.mark.parametrize("record", [begin(10, 0)[:-1], begin(10, 0) + b"x", go() + b"x", go()[:15]], ids=len)
def test_records_of_another_size_end_the_channel(near, record):
    """BEGIN and GO have one size."""
    near.send(record)
    assert by_hand.ended(near)


def test_a_second_begin_abandons_the_first(near, capability, writer):
    """What came of the first is closed, and the second is a call as any other."""
    near.send(begin(1 << 20, 600))
    by_hand.send(near, part(b"x" * 1000, 253), [writer.fileno()] * 253)
    hand.await_go(near)
    hand.send_long(near, call(capability, b"size", [bytes(300_000)], id=2), call_id=2)
    record, _ = by_hand.answer(near)
    assert (record.id, msgspec.msgpack.decode(record.payload)) == (2, 300_000)
    assert hand.lives(near, capability)


def test_a_call_in_the_middle_of_a_long_one_abandons_it(near, capability, writer):
    """The short call is answered; a part that comes after it is one of nothing."""
    near.send(begin(1 << 20, 600))
    by_hand.send(near, part(b"x" * 1000, 253), [writer.fileno()] * 253)
    hand.await_go(near)
    assert hand.lives(near, capability)
    by_hand.send(near, part(b"x", 1), [writer.fileno()])
    assert by_hand.ended(near)


@pytest.mark.parametrize(
    ("size", "descriptors", "named"),
    [
        ((1 << 64) - 1, 0, "max_bytes"),
        (1, (1 << 32) - 1, "max_descriptors"),
        ((64 << 20) + 1, 0, "67108864 (max_bytes)"),
        (1, 1025, "1024 (max_descriptors)"),
    ],
)
def test_a_monster_is_refused_when_it_is_announced(near, capability, writer, size, descriptors, named):
    """The refusal names the maximum; parts that were under way are closed, and the channel lives on."""
    near.send(begin(size, descriptors))
    fault, _ = by_hand.answer(near)
    assert fault.code is Code.TOO_BIG
    assert named in fault.message
    # As one sends that has not read the refusal: passed over, with a GO for who waits for one.
    by_hand.send(near, part(b"x" * 60_000, 253), [writer.fileno()] * 253)
    hand.await_go(near)
    near.send(part(b"x" * 60_000))
    assert hand.lives(near, capability)
    # The refusal was for that call and no other.
    near.send(part(b"x", call_id=5))
    assert by_hand.ended(near)


def test_a_begin_of_nothing_does_no_harm(near, capability):
    """A record of no bytes never comes; the next call abandons it."""
    near.send(begin(0, 0))
    assert hand.lives(near, capability)


def test_a_go_out_of_the_blue_does_no_harm(near, capability, writer):
    """Nobody waits for it, whatever its ID; what it carries is closed."""
    for call_id in (0, 1, 2, (1 << 64) - 1):
        by_hand.send(near, go(call_id), [writer.fileno()])
    near.send(begin(1000, 0))
    near.send(go())
    assert hand.lives(near, capability)


@pytest.mark.parametrize("kind", ["BEGIN", "PART", "GO", "REPLY", "KNOCK", "GONE", "junk"])
def test_a_long_record_that_is_no_call_ends_the_channel(near, capability, kind):
    """Parts carry calls; a record of parts within parts is none."""
    inner = {
        "BEGIN": begin(5, 0),
        "PART": part(b"x"),
        "GO": go(),
        "REPLY": _wire.pack_reply(1, [], 0, b"\x01"),
        "KNOCK": _wire.KNOCK_RECORD,
        "GONE": _wire.GONE_RECORD,
        "junk": b"junk",
    }[kind]
    hand.send_long(near, inner)
    if kind == "junk":
        assert by_hand.ended(near)
    else:
        near.settimeout(PATIENCE)
        assert by_hand.ended(near)


def test_a_long_call_that_is_malformed_within_is_answered(near, capability, writer):
    """The call has an ID, so it gets an answer; its 300 descriptors are closed."""
    record = call(capability, b"check", [b"", list(range(300))], 300, version=9)
    hand.send_long(near, record, [writer.fileno()] * 300)
    assert by_hand.failure(near) is Code.MALFORMED
    assert hand.lives(near, capability)


def test_a_long_call_of_another_version_is_answered(near, capability):
    """As a short one is: the channel would end after each try, and the client would make it again and again."""
    near.send(bytes([9]) + begin(300_000, 0)[1:])
    fault, _ = by_hand.answer(near)
    assert fault.code is Code.MALFORMED
    assert "version 9 of the protocol" in fault.message
    near.send(bytes([9]) + part(bytes(1000))[1:])
    assert by_hand.failure(near) is Code.MALFORMED
    assert hand.lives(near, capability)


@pytest.mark.parametrize("announced", [299, 301])
def test_a_long_call_whose_head_counts_other_descriptors_is_answered(near, capability, writer, announced):
    """What the CALL says must be what the BEGIN said."""
    record = by_hand.call(capability, b"size", b"\x91\xc4\x00", descriptors=announced)
    hand.send_long(near, record, [writer.fileno()] * 300)
    assert by_hand.failure(near) is Code.MALFORMED
    assert hand.lives(near, capability)


def test_a_client_that_dies_in_mid_part_leaves_nothing(capability, writer):
    """Half a call is not run, and what came of it is closed."""
    runs = capability.cast(hand.Bulk).state().runs
    with by_hand.knock(capability) as near:
        records = list(hand.pieces(call(capability, b"check", [bytes(300_000), []], 600), [writer.fileno()] * 600))
        for data, numbers, _waits in records[:3]:
            by_hand.send(near, data, numbers)
    with cm.timeout(PATIENCE):
        assert capability.cast(hand.Bulk).state().runs == runs


def test_a_long_reply_is_abandoned_by_a_new_call(near, capability):
    """The server awaits a GO; a call comes instead: it is answered, and the rest of the reply never comes."""
    near.send(call(capability, b"make", [1000, 600]))
    _, numbers = hand.long_answer(near, say_go=False)
    assert len(numbers) == 253
    hand.close_all(numbers)
    assert hand.lives(near, capability)
    near.send(go())
    assert hand.lives(near, capability, call_id=78)


def test_a_long_reply_is_abandoned_by_a_long_call(near, capability, files):
    """The same, with a BEGIN."""
    near.send(call(capability, b"make", [1000, 600]))
    _, numbers = hand.long_answer(near, say_go=False)
    hand.close_all(numbers)
    hand.send_long(near, call(capability, b"check", [b"", list(range(300))], 300, id=2), files(300), call_id=2)
    record, _ = by_hand.answer(near)
    assert record.id == 2
    assert hand.lives(near, capability)


def test_a_go_for_another_call_gets_nobody_further(near, capability):
    """The rest of a reply comes for the GO of its own call."""
    near.send(call(capability, b"make", [1000, 300]))
    _, numbers = hand.long_answer(near, say_go=False)
    near.send(go(2))
    near.settimeout(0.05)  # nothing comes, which nothing tells but time
    with pytest.raises(TimeoutError):
        near.recv(1, socket.MSG_PEEK)
    near.settimeout(PATIENCE)
    near.send(go(1))
    record, rest = by_hand.answer(near)
    assert isinstance(record, _wire.Part)
    assert len(numbers + rest) == 300
    hand.close_all(numbers + rest)


def test_a_client_that_ends_while_a_reply_awaits_its_go_leaves_nothing(capability):
    """The unsent descriptors of the reply are closed."""
    with by_hand.knock(capability) as near:
        near.send(call(capability, b"make", [1000, 600]))
        _, numbers = hand.long_answer(near, say_go=False)
        hand.close_all(numbers)


@pytest.mark.parametrize("part_size", [1, 17])
def test_parts_of_any_size_make_a_call(near, capability, part_size):
    """A call in 1-byte parts is a call."""
    record = call(capability, b"size", [b"12345"])
    for data, _, _ in hand.pieces(record, size=part_size):
        near.send(data)
    answer, _ = by_hand.answer(near)
    assert bytes(answer.payload) == b"\x05"


@pytest.mark.parametrize("how", ["abandoned", "refused", "died", "malformed", "unreferenced"])
def test_a_lingering_socket_in_a_long_call_delays_nobody(capability, lingering, how):
    """Its closing takes as long as its sender likes; other clients' calls are answered meanwhile."""
    number, peer = lingering(600)
    proxy = capability.cast(hand.Bulk)
    unreferenced = by_hand.call(capability, b"size", b"\x91\xc4\x00", descriptors=253)
    size, count = {"refused": (1, 2000), "unreferenced": (len(unreferenced), 253)}.get(how, (1000, 600))
    with contextlib.ExitStack() as stack:
        stack.callback(peer.close)
        near = stack.enter_context(by_hand.knock(capability))
        # The server's copy is the last: ours is closed before it looks.
        with hand.busy(proxy):
            near.send(begin(size, count))
            by_hand.send(near, part(unreferenced if how == "unreferenced" else b"x", 253), [number] * 253)
            os.close(number)
            if how == "malformed":
                near.send(part())
            elif how == "abandoned":
                near.send(call(capability, b"size", [b"123"]))
            elif how == "died":
                near.close()
        with cm.timeout(PATIENCE):
            for _ in range(20):
                assert proxy.size(b"abc") == 3
