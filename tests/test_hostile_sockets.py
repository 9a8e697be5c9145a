"""What a client does to a socket that it shares with the server: its own channel, and nobody else, pays."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time

import pytest

import by_hand
import matrix
from capmarshal._descriptors import reaper as _reaper
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE
# include/uapi/asm-generic/socket.h; this Python does not name them.
SO_PASSPIDFD, SO_PASSRIGHTS = 76, 83

NO_BADGE = _wire.NO_BADGE


def test_an_answer_that_the_channel_has_no_room_for_is_an_error_or_comes_in_parts(capability):
    """A client that shrinks the send buffer of the far end, of which it kept a copy, cannot stall the server.

    It depends on whether the server had looked at the buffer before.
    """
    near, far = by_hand.knock(capability, keep_far=True)
    with near, far:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        near.send(by_hand.call(capability, method=b"blob", payload=b"\x91\xcd\x75\x30"))
        first, _ = by_hand.answer(near)
        if isinstance(first, _wire.Begin):
            size = 0
            while size < first.size:
                part, _ = by_hand.answer(near)
                size += len(part.payload)
        else:
            assert first.code is Code.TOO_BIG
        assert by_hand.lives(near, capability)


def test_flags_of_the_far_end_change_nothing(capability):
    """O_NONBLOCK, O_ASYNC and a receive timeout, set on a copy of the far end, are not trusted."""
    near, far = by_hand.knock(capability, keep_far=True)
    with near, far:
        far.setblocking(False)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 20)
        assert by_hand.lives(near, capability)
        far.setblocking(True)
        assert by_hand.lives(near, capability)


@pytest.mark.parametrize(
    "options",
    [(SO_PASSPIDFD,), (socket.SO_PASSCRED,), (29,), (35,), (34,), (SO_PASSPIDFD, socket.SO_PASSCRED, 29, 34)],
    ids=["pidfd", "credentials", "timestamp", "timestamp in ns", "security label", "all"],
)
def test_control_messages_that_a_client_switches_on_cost_the_server_nothing(capability, options, open_descriptors):
    """A pidfd, credentials and time stamps come with each record from then on: none of it stays open."""
    near, far = by_hand.knock(capability, keep_far=True)
    with near, far, by_hand.temporary() as file:
        assert by_hand.lives(near, capability)
        for option in options:
            try:
                far.setsockopt(socket.SOL_SOCKET, option, 1)
            except OSError as error:
                assert error.errno == errno.ENOPROTOOPT
        before = open_descriptors()
        for number in range(50):
            near.send(by_hand.call(capability, id=number))
            assert by_hand.answer(near)[0].id == number
            record = by_hand.call(
                capability, method=b"count", payload=b"\x91\x91\x00", entries=[(0, NO_BADGE)], descriptors=1
            )
            by_hand.send(near, record, [file.fileno()])
            assert bytes(by_hand.answer(near)[0].payload) == b"\x01"
        assert_settles(open_descriptors, before)


def test_a_client_that_refuses_descriptors_is_dropped(capability):
    """SO_PASSRIGHTS off at its own end makes an answer with descriptors impossible: its channel ends, no other."""
    with by_hand.knock(capability) as near, by_hand.knock(capability) as other:
        try:
            near.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError as error:
            assert error.errno == errno.ENOPROTOOPT
            pytest.skip("SO_PASSRIGHTS came with Linux 6.16")
        near.send(by_hand.call(capability, method=b"pipes", payload=b"\x91\x02"))
        assert by_hand.ended(near)
        other.send(by_hand.call(capability, method=b"pipes", payload=b"\x91\x02"))
        record, descriptors = by_hand.answer(other)
        for number in descriptors:
            os.close(number)
        assert (record.descriptors, len(descriptors)) == (2, 2)


@matrix.one_call_a_channel
def test_a_client_that_never_reads_costs_one_answer(capability, until, open_descriptors):
    """It sends call upon call: the server reads no further than to the answer that it cannot deliver."""
    with by_hand.knock(capability) as near, by_hand.knock(capability) as other:
        near.setblocking(False)
        sent = 0
        deadline = time.monotonic() + PATIENCE
        blocked = 0
        # The queue stays full for a hundred looks, each after an answered call of the other client's.
        while blocked < 100:
            assert time.monotonic() < deadline
            try:
                near.send(
                    by_hand.call(
                        capability, method=b"blob", payload=b"\x91\xce" + struct.pack(">I", 100_000), id=sent + 1
                    )
                )
                sent += 1
                blocked = 0
            except BlockingIOError:
                blocked += 1
                assert by_hand.lives(other, capability)
        # 212,992 bytes of send buffer at the server: two answers in the queue, one parked.
        assert sent < 2000
        near.setblocking(True)
        near.settimeout(PATIENCE)
        for number in range(1, sent + 1):
            record, _ = by_hand.answer(near)
            assert record.id == number
            assert len(record.payload) > 100_000


@matrix.one_call_a_channel
def test_a_parked_answers_descriptors_are_the_servers_own(capability, open_descriptors):
    """A client that reads late gets its descriptors, though the call that made them has ended; nothing stays open."""
    before = open_descriptors()
    with by_hand.knock(capability) as near:
        near.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(by_hand.call(capability, method=b"pipes", payload=b"\x91\x02", id=sent + 1))
                sent += 1
        near.setblocking(True)
        near.settimeout(PATIENCE)
        for number in range(1, sent + 1):
            record, descriptors = by_hand.answer(near)
            assert (record.id, len(descriptors)) == (number, 2)
            assert os.write(descriptors[1], b"x") == 1
            assert os.read(descriptors[0], 2) == b"x"
            for one in descriptors:
                os.close(one)
    assert_settles(open_descriptors, before)


def assert_settles(open_descriptors, before):
    deadline = time.monotonic() + PATIENCE
    while open_descriptors() != before:
        assert time.monotonic() < deadline, sorted(open_descriptors() ^ before)
        assert _reaper.wait(PATIENCE)


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_channel_that_is_shut_down_is_dropped(capability, how, open_descriptors):
    """Half of a channel is no channel; the server ends its side."""
    before = open_descriptors()
    near, far = by_hand.knock(capability, keep_far=True)
    with near, far:
        far.shutdown(how)
        with contextlib.suppress(BrokenPipeError):
            near.send(by_hand.call(capability))
    assert_settles(open_descriptors, before)


def test_a_client_that_goes_before_its_answer_costs_nothing(capability, open_descriptors):
    """Closed after a call, with descriptors in both directions: all is closed."""
    before = open_descriptors()
    for _ in range(20):
        with by_hand.knock(capability) as near, by_hand.temporary() as file:
            record = by_hand.call(
                capability, method=b"echo", payload=b"\x91\x00", entries=[(0, NO_BADGE)], descriptors=1
            )
            by_hand.send(near, record, [file.fileno()])
            near.send(by_hand.call(capability, method=b"pipes", payload=b"\x91\x04"))
    assert_settles(open_descriptors, before)
