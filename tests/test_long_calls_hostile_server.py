"""Long calls by hand: what a hostile server can do with parts, and that no call outlasts its deadline for it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import msgspec
import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand
from capmarshal._protocol import wire as _wire

begin, part, go, call = hand.begin, hand.part, hand.go, hand.call
PATIENCE = hand.PATIENCE


@pytest.fixture
def null():
    """A descriptor of /dev/null."""
    with open(os.devnull, "rb") as file:
        yield file.fileno()


def asking(impostor, ask=lambda bulk: bulk.make(1, 1), seconds=PATIENCE):
    """A call in a thread."""

    def run():
        with cm.timeout(seconds):
            return ask(impostor.capability.cast(hand.Bulk))

    return by_hand.Concurrent(run)


def send_reply(channel, payload, files, numbers, call_id=1):
    """A long reply, as an honest server sends it; the record that was sent."""
    entries = [(slot, hand.NO_BADGE) for slot in range(files)]
    record = by_hand.reply(call_id, msgspec.msgpack.encode(payload), entries, files)
    hand.send_long(channel, record, numbers, call_id)


def test_a_long_answer_by_hand_is_a_result(impostor, files, identity):
    """The measure of all below."""
    numbers = files(300)
    thread = asking(impostor)
    with impostor.accept() as channel:
        channel.recv(4096)
        send_reply(channel, [b"x" * 200_000, list(range(300))], 300, numbers)
        data, made = thread.outcome()
    assert data == b"x" * 200_000
    assert [identity(each) for each in made] == [identity(number) for number in numbers]
    for each in made:
        each.close()


def test_a_server_that_begins_and_stalls_costs_the_deadline(impostor, writer):
    """CallTimeout, what came is closed, and the channel is not used again."""
    thread = asking(impostor, seconds=0.2)
    with impostor.accept() as channel:
        channel.recv(4096)
        channel.send(begin(1000, 600))
        by_hand.send(channel, part(b"x", 253), [writer.fileno()] * 253)
        with pytest.raises(cm.CallTimeout) as caught:
            thread.outcome()
        assert caught.value.ran == "maybe"
        hand.await_go(channel)
        assert by_hand.ended(channel)
    again = asking(impostor, lambda bulk: bulk.run())
    with impostor.accept() as channel:
        channel.recv(4096)
        channel.send(by_hand.reply(1))
        assert again.outcome() == 42


def test_a_server_that_dies_in_the_middle_of_its_answer_may_have_run_the_call(impostor, writer):
    """An answer that has begun is the answer to a call that was read, even if the client's GO was not."""
    for unread_go in (False, True):
        thread = asking(impostor)
        with impostor.accept() as channel:
            channel.recv(4096)
            channel.send(begin(1000, 600))
            by_hand.send(channel, part(b"x", 2), [writer.fileno()] * 2)
            if unread_go:
                assert channel.recv(1, socket.MSG_PEEK)
            else:
                hand.await_go(channel)
        with pytest.raises(cm.Disconnected) as caught:
            thread.outcome()
        assert caught.value.ran == "maybe"


@pytest.mark.parametrize(
    ("size", "descriptors"), [((1 << 64) - 1, 0), ((1 << 30) + 1, 0), (1, 1 << 16), (1, (1 << 32) - 1)]
)
def test_a_server_that_announces_a_monster_is_an_error_at_once(impostor, size, descriptors):
    """The client makes no room for what it would never take."""
    thread = asking(impostor)
    with impostor.accept() as channel:
        channel.recv(4096)
        channel.send(begin(size, descriptors))
        with pytest.raises(cm.TooLarge, match="1073741824"):
            thread.outcome()
        assert by_hand.ended(channel)


@pytest.mark.parametrize(
    "records",
    [
        [(part(b"x", 2), 2)],
        [(begin(10, 0), 0), (part(b"x" * 11), 0)],
        [(begin(10, 1), 0), (part(b"x", 2), 2)],
        [(begin(10, 3), 0), (part(b"x", 2), 2), (part(b"x", 2), 2)],
        [(begin(10, 3), 0), (part(b"x", 2), 1)],
        [(begin(10, 3), 0), (part(b"x", 1), 2)],
        [(begin(10, 3), 0), (part(), 0)],
        [(begin(10, 3), 1)],
        [(go(), 1)],
        [(begin(4, 2), 0), (part(b"junk", 2), 2)],
        [(begin(17, 2), 0), (part(by_hand.reply(1, b"\x2a", descriptors=1), 2), 2)],
        [(begin(17, 2), 0), (part(by_hand.reply(1, b"\x2a", descriptors=3), 2), 2)],
        [(part(call_id=2), 0)],
        [(begin(10, 0, call_id=2), 0)],
    ],
)
def test_a_server_that_lies_about_its_answer_is_a_protocol_error(impostor, writer, records):
    """More or less than was announced, in any way: an error at once, and all that came is closed."""
    thread = asking(impostor)
    with impostor.accept() as channel:
        channel.recv(4096)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for record, count in records:
                by_hand.send(channel, record, [writer.fileno()] * count)
        with pytest.raises(cm.ProtocolError):
            thread.outcome()


def test_a_server_that_answers_with_another_calls_long_record_costs_the_deadline(impostor, writer):
    """A whole record that is no answer to this call is closed."""
    thread = asking(impostor, seconds=0.2)
    with impostor.accept() as channel:
        channel.recv(4096)
        inner = by_hand.reply(2, b"\x2a", descriptors=2)
        channel.send(begin(len(inner), 2))
        by_hand.send(channel, part(inner, 2), [writer.fileno()] * 2)
        with pytest.raises((cm.CallTimeout, cm.ProtocolError)):
            thread.outcome()


@pytest.mark.parametrize(
    "flood", ["late answers", "late answers of files", "GO", "parts of a late answer", "1-byte parts"]
)
@pytest.mark.parametrize("long", [False, True])
def test_a_server_that_floods_does_not_outlast_the_deadline(impostor, flood, long, null):
    """Records that are no answer do not keep a call waiting beyond its time, while it is sent or after."""
    first = asking(impostor, lambda bulk: bulk.run())
    with impostor.accept() as channel:
        channel.recv(4096)
        channel.send(by_hand.reply(1))
        assert first.outcome() == 42
        data = bytes(2_000_000) if long else b""
        thread = asking(impostor, lambda bulk: bulk.size(data), seconds=0.5)
        record, numbers = {
            "late answers": (by_hand.reply(1), []),
            # These take longer to close than to send: there is always one more.
            "late answers of files": (by_hand.reply(1, entries=[(0, hand.NO_BADGE)], descriptors=253), [null] * 253),
            "GO": (go(2), []),
            "parts of a late answer": (part(b"x", call_id=1), []),
            "1-byte parts": (part(b"x", call_id=2), []),
        }[flood]
        # The call is on its way: from here on the server only sends.
        channel.recv(1 << 18)
        if flood == "1-byte parts":
            channel.send(begin(1 << 29, 0, call_id=2))
        channel.setblocking(False)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while thread.is_alive():
                try:
                    by_hand.send(channel, record, numbers)
                except OSError as error:
                    # Nobody may read it any more: a client that is late keeps its channel for the next call.  Or as
                    # much of an ordinary user's is in flight as may be.
                    if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS):
                        raise
                    thread.join(0.001)
        with pytest.raises(cm.CallTimeout):
            thread.outcome()


def test_a_server_that_never_reads_costs_the_deadline_and_the_call_did_not_run(impostor):
    """A long call that was not sent whole never ran."""
    thread = asking(impostor, lambda bulk: bulk.size(bytes(1 << 20)), seconds=0.2)
    with impostor.accept():
        with pytest.raises(cm.CallTimeout) as caught:
            thread.outcome()
        assert caught.value.ran == "no"


def test_no_more_descriptors_are_sent_before_the_server_says_go(impostor, files):
    """Of a thousand, 253 are in flight, and no more until the server has them."""
    (number,) = files(1)
    with cm.Descriptor.dup_of(number) as one:
        thread = asking(impostor, lambda bulk: bulk.check(bytes(500_000), [one] * 1000))
        with impostor.accept() as channel:
            head, _ = by_hand.answer(channel)
            counts, size = [], 0
            while size < head.size or sum(counts) < 1000:
                record, numbers = by_hand.answer(channel)
                size += len(record.payload)
                hand.close_all(numbers)
                if not numbers:
                    continue
                counts.append(len(numbers))
                if sum(counts) < 1000:
                    channel.settimeout(0.05)  # nothing comes, which nothing tells but time
                    with pytest.raises(TimeoutError):
                        channel.recv(1, socket.MSG_PEEK)
                    channel.settimeout(PATIENCE)
                    channel.send(go())
            channel.send(by_hand.reply(1, msgspec.msgpack.encode(["done", []])))
            assert thread.outcome() == ("done", [])
    assert counts == [253, 253, 253, 241]


def test_a_server_that_says_no_go_costs_the_deadline_and_the_call_did_not_run(impostor, files):
    """Nor did one whose descriptors were not all sent."""
    many = [cm.Descriptor.dup_of(number) for number in files(300)]
    thread = asking(impostor, lambda bulk: bulk.check(b"", many), seconds=0.2)
    with impostor.accept():
        with pytest.raises(cm.CallTimeout) as caught:
            thread.outcome()
        assert caught.value.ran == "no"
    for each in many:
        each.close()


def test_a_server_that_ends_in_the_middle_of_a_call_is_called_again(impostor, files):
    """Half a call was not run: it is repeated on a new channel, all of it."""
    many = [cm.Descriptor.dup_of(number) for number in files(300)]
    thread = asking(impostor, lambda bulk: bulk.check(bytes(500_000), many))
    for _ in range(2):
        with impostor.accept() as channel:
            assert isinstance(_wire.unpack(channel.recv(1 << 18)), _wire.Begin)
    with impostor.accept() as channel:
        record, numbers = hand.long_answer(channel)
        assert isinstance(record, _wire.Call)
        assert len(numbers) == 300
        hand.close_all(numbers)
        channel.send(by_hand.reply(1, msgspec.msgpack.encode(["done", []])))
        assert thread.outcome() == ("done", [])
    for each in many:
        each.close()
