"""What a client gets from a hostile server that speaks by hand: an error or a result, nothing that stays open."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._protocol import wire as _wire
from patience import BEGINS

PATIENCE, NO_BADGE = by_hand.PATIENCE, _wire.NO_BADGE


def answered_with(impostor, record, descriptors=(), call=lambda proxy: proxy.double(1)):
    """What a call raises or returns that the server answers with this record."""

    def ask():
        with cm.timeout(PATIENCE):
            return call(impostor.capability.cast(by_hand.Work))

    asking = by_hand.Concurrent(ask)
    with impostor.accept() as channel:
        assert isinstance(_wire.unpack(channel.recv(1 << 20)), _wire.Call)
        by_hand.send(channel, record, descriptors)
        return asking.outcome()


def test_an_answer_by_hand_is_a_result(impostor):
    """The measure of all below."""
    assert answered_with(impostor, by_hand.reply(1)) == 42


@pytest.mark.parametrize(
    "record",
    [
        b"\x01",
        by_hand.reply(1)[:15],
        by_hand.reply(1, version=_wire.VERSION + 1),
        by_hand.reply(1, kind=9),
        by_hand.reply(1, kind=_wire.FAIL, count=1),
        by_hand.reply(1, kind=_wire.CALL),
        by_hand.reply(1, kind=_wire.FAIL, cpu=1),
        by_hand.reply(1, count=1),
        by_hand.reply(1, count=65535),
        by_hand.reply(1, descriptors=1),
        by_hand.reply(0),
        by_hand.reply(2),
        by_hand.reply((1 << 64) - 1),
        by_hand.reply(1, entries=[(0, NO_BADGE), (0, NO_BADGE)], descriptors=1),
        by_hand.reply(1, entries=[(1, NO_BADGE)], descriptors=1),
        _wire.KNOCK_RECORD,
        _wire.pack_fail(1, b""),
        _wire.pack_fail(1, b"\xc1"),
        _wire.pack_fail(1, b"\x91" * 100_000),
        _wire.pack_fail(1, b"\x92\xcc\xff\xa1x"),
        _wire.pack_fail(1, b"\x92\x0a\xa1x"),
    ],
    ids=lambda record: f"{len(record)}-{record[:17].hex()}",
)
def test_what_is_no_answer_is_a_protocol_error(impostor, record):
    """The caller is told, and what came with it is closed."""
    carries = record[1:2] == bytes([_wire.REPLY]) and record != by_hand.reply(1, descriptors=1)
    with by_hand.pipe() as (reader, writer):
        with pytest.raises(cm.ProtocolError):
            answered_with(impostor, record, [writer.fileno()] if carries else [])
        writer.close()
        by_hand.at_end(reader)


def test_an_empty_answer_is_the_end(impostor):
    """A 0-byte record is none of the protocol's; the caller does not wait any longer."""
    with pytest.raises(cm.Disconnected) as caught:
        answered_with(impostor, b"")
    assert caught.value.ran == "maybe"


@pytest.mark.parametrize(
    "payload", [b"", b"\xa1x", b"\xc1", b"\x91" * 100_000, b"\x2a\x2a", b"\xdd\xff\xff\xff\xff"], ids=len
)
def test_a_payload_that_is_no_result_is_an_argument_error(impostor, payload):
    """It names the method; descriptors that came along are closed."""
    with by_hand.pipe() as (reader, writer):
        with pytest.raises(cm.ArgumentError, match=r"Work\.double, result"):
            answered_with(impostor, by_hand.reply(1, payload, descriptors=1), [writer.fileno()])
        writer.close()
        by_hand.at_end(reader)


def test_descriptors_that_no_result_refers_to_are_closed(impostor):
    """The result is used, and 253 descriptors that nobody asked for do not stay."""
    with by_hand.pipe() as (reader, writer):
        assert answered_with(impostor, by_hand.reply(1, descriptors=253), [writer.fileno()] * 253) == 42
        writer.close()
        by_hand.at_end(reader)


@pytest.mark.parametrize("payload", [b"\x92\x00\x00", b"\x91\x02", b"\x91\xff", b"\x92\x00\xc3"], ids=bytes.hex)
def test_an_index_of_a_result_that_is_none_is_an_argument_error(impostor, payload):
    """What was made of the good indices before it is closed too."""
    with by_hand.pipe() as (reader, writer):
        record = by_hand.reply(1, payload, [(0, NO_BADGE), (1, NO_BADGE)], 2)
        with pytest.raises(cm.ArgumentError):
            answered_with(impostor, record, [writer.fileno()] * 2, lambda proxy: proxy.pipes(1))
        writer.close()
        by_hand.at_end(reader)


def test_late_answers_are_passed_over(impostor):
    """Answers to earlier calls, as often as they come, are not taken for this one's; their descriptors are closed."""
    with by_hand.pipe() as (reader, writer):

        def ask():
            with cm.timeout(PATIENCE):
                return [impostor.capability.cast(by_hand.Work).double(number) for number in range(2)]

        asking = by_hand.Concurrent(ask)
        with impostor.accept() as channel:
            channel.recv(4096)
            channel.send(by_hand.reply(1))
            channel.recv(4096)
            for _ in range(100):
                by_hand.send(channel, by_hand.reply(1, b"\x01", descriptors=1), [writer.fileno()])
            channel.send(by_hand.reply(2, b"\x07"))
            assert asking.outcome() == [42, 7]
        writer.close()
        by_hand.at_end(reader)


def test_a_capability_that_comes_as_a_result_must_be_one(impostor):
    """A file, or a socket that is none of ours, does not become a capability."""

    class Source(cm.Interface):
        @cm.method
        def get(self) -> cm.Capability: ...

    def get(_proxy):
        return impostor.capability.cast(Source).get()

    with by_hand.temporary(b"x") as file:
        record = by_hand.reply(1, b"\x00", [(0, b"b" * 16)], 1)
        with pytest.raises(cm.ArgumentError, match="SEQPACKET"):
            answered_with(impostor, record, [file.fileno()], get)


def test_two_files_under_one_key_of_a_map(impostor):
    """One of them arrives; the other is closed where that may block, and not by whoever happens to let go of it."""

    class Source(cm.Interface):
        @cm.method
        def get(self) -> dict[str, cm.Descriptor]: ...

    def get(_proxy):
        return impostor.capability.cast(Source).get()

    with by_hand.temporary(b"x") as file, by_hand.pipe() as (reader, writer):
        record = by_hand.reply(1, b"\x82\xa1a\x00\xa1a\x01", [(0, bytes(16)), (1, bytes(16))], 2)
        got = answered_with(impostor, record, [writer.fileno(), file.fileno()], get)
        assert os.fstat(got["a"].fileno()).st_ino == os.fstat(file.fileno()).st_ino
        got["a"].close()
        writer.close()
        by_hand.at_end(reader)


def test_a_capability_of_our_own_that_comes_as_a_result_must_be_known(impostor):
    """A guessed badge on our own door is refused at once."""

    class Source(cm.Interface):
        @cm.method
        def get(self) -> cm.Capability: ...

    with by_hand.serving() as own:
        record = by_hand.reply(1, b"\x00", [(0, b"b" * 16)], 1)
        with pytest.raises(cm.StaleCapability):
            answered_with(
                impostor, record, [open_door_of(own).number], lambda _: impostor.capability.cast(Source).get()
            )
        record = by_hand.reply(1, b"\x00", [(0, badge_of(own))], 1)
        got = answered_with(
            impostor, record, [open_door_of(own).number], lambda _: impostor.capability.cast(Source).get()
        )
        assert got is own


def test_closing_what_a_server_sent_does_not_outlast_the_deadline(impostor, lingering):
    """A late answer brings a socket whose closing takes a minute: the next answer is there at once."""
    number, peer = lingering(600)
    answered, sent = threading.Event(), threading.Event()

    def ask():
        proxy = impostor.capability.cast(by_hand.Work)
        with cm.timeout(PATIENCE):
            first = proxy.double(1)
            answered.set()
            assert sent.wait(PATIENCE)
            return first, proxy.double(2)

    asking = by_hand.Concurrent(ask)
    with impostor.accept() as channel:
        channel.recv(4096)
        channel.send(by_hand.reply(1))
        assert answered.wait(PATIENCE)
        by_hand.send(channel, by_hand.reply(1, descriptors=1), [number])
        os.close(number)
        sent.set()
        channel.recv(4096)
        channel.send(by_hand.reply(2))
        assert asking.outcome() == (42, 42)
    peer.close()


def test_a_server_that_never_answers_is_left_at_the_deadline(impostor):
    """Whether it took the knock, or the call, or neither."""
    with pytest.raises(cm.CallTimeout), cm.timeout(BEGINS):
        impostor.capability.cast(by_hand.Work).double(1)
    with impostor.accept() as channel:
        channel.recv(4096)
        with pytest.raises(cm.CallTimeout), cm.timeout(BEGINS):
            impostor.capability.cast(by_hand.Work).double(1)


def test_a_server_that_ends_every_channel_is_no_endless_loop(impostor):
    """Each refused knock is repeated later, until the deadline."""
    asking = by_hand.Concurrent(lambda: _double_within(impostor.capability, 1))
    impostor.end.settimeout(0.1)
    refused = 0
    while asking.is_alive():
        with contextlib.suppress(TimeoutError):
            impostor.accept().close()
            refused += 1
    assert 2 < refused < 200
    with pytest.raises((cm.CallTimeout, cm.Disconnected)):
        asking.outcome()


def _double_within(capability, seconds):
    with cm.timeout(seconds):
        return capability.cast(by_hand.Work).double(1)


def test_a_door_that_stays_full_ends_at_the_deadline(impostor):
    """Nobody takes the knocks: the next one waits, no longer than it may."""
    door = socket.socket(fileno=os.dup(open_door_of(impostor.capability).number))
    with door:
        door.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                door.send(b"junk")
        with pytest.raises(cm.CallTimeout) as caught:
            _double_within(impostor.capability, 0.05)
        assert caught.value.ran == "no"
