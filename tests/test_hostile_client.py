"""What a hostile client gets that speaks to an entrypoint by hand: an answer or the end, and nobody else pays."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper as _reaper
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE
# include/uapi/asm-generic/socket.h; this Python does not name it.
SO_SNDBUFFORCE = 32

NO_BADGE = _wire.NO_BADGE


def test_a_call_made_by_hand_is_answered(near, capability):
    """The measure of all below: what a correct record gets."""
    assert by_hand.lives(near, capability)


@pytest.mark.parametrize("size", [1, 2, 8, 15])
def test_a_record_without_a_whole_head_ends_the_channel(near, capability, size):
    """There is no ID to answer, so the channel ends."""
    near.send(by_hand.call(capability)[:size])
    assert by_hand.ended(near)


@pytest.mark.parametrize("size", [16, 17, 32, 49, 50, 55])
def test_a_call_that_is_cut_short_is_answered(near, capability, size):
    """A FAIL that says so, and the channel lives on."""
    near.send(by_hand.call(capability)[:size])
    assert by_hand.failure(near) is Code.MALFORMED
    assert by_hand.lives(near, capability)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 0},
        {"version": _wire.VERSION + 1},
        {"version": 255},
        {"kind": 0},
        {"kind": 9},
        {"kind": 255},
        {"kind": _wire.KNOCK},
        {"count": 1},
        {"count": 65535},
        {"descriptors": 1},
        {"descriptors": 65535},
        {"length": 7},
        {"length": 9},
        {"length": 65535},
    ],
    ids=str,
)
def test_a_lying_head_is_answered(near, capability, changed):
    """A wrong version, kind or count is an error of that call, and the channel lives on."""
    near.send(by_hand.call(capability, **changed))
    assert by_hand.failure(near) in (Code.MALFORMED, Code.UNKNOWN_METHOD, Code.ARGUMENT)
    assert by_hand.lives(near, capability)


@pytest.mark.parametrize("kind", ["REPLY", "FAIL", "KNOCK"])
def test_a_record_of_another_direction_ends_the_channel(near, kind):
    """A channel of the client's carries calls and nothing else."""
    records = {
        "REPLY": _wire.pack_reply(1, [], 0, b"\x2a"),
        "FAIL": _wire.pack_fail(1, b""),
        "KNOCK": _wire.KNOCK_RECORD,
    }
    near.send(records[kind])
    assert by_hand.ended(near)


def test_an_empty_record_on_a_channel_ends_it(near):
    """It cannot be told from the end, and is none of the protocol's."""
    near.send(b"")
    assert by_hand.ended(near)


def test_a_record_larger_than_the_room_is_answered(near, capability):
    """A sender with a large buffer gets an error that names the limit, not silence."""
    near.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE if os.getuid() == 0 else socket.SO_SNDBUF, 1 << 20)
    try:
        near.send(
            by_hand.call(capability, method=b"size", payload=b"\x91\xc6" + struct.pack(">I", 300_000) + bytes(300_000))
        )
    except OSError as error:
        assert error.errno == errno.EMSGSIZE
        pytest.skip("an ordinary user here cannot make a send buffer that large")
    fault, _ = by_hand.answer(near)
    assert fault.code is Code.TOO_BIG
    assert "262144" in fault.message
    assert by_hand.lives(near, capability)


DEEP = b"\x91" + b"\x91" * 100_000 + b"\xc0"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x92\x01\x02",
        b"\x91",
        b"\x91\xa1x",
        b"\x91\x01\x01",
        b"\x91\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x91\xc7\xff\xff",
        b"\x91\xd6\xff\xff\xff\xff\xff",
        b"\x91\xa4\xff\xfe\xfd\xfc",
        DEEP,
    ],
    ids=lambda payload: payload[:6].hex() or "none",
)
@pytest.mark.parametrize("method", [b"double", b"size", b"count", b"take", b"maybe"])
def test_a_payload_that_is_no_arguments_is_answered(near, capability, method, payload):
    """Broken, wrong or absurdly deep data are bad arguments, and no more."""
    near.send(by_hand.call(capability, method=method, payload=payload))
    assert by_hand.failure(near) is Code.ARGUMENT
    assert by_hand.lives(near, capability)


def test_deep_nesting_within_an_argument_is_answered(capability, near):
    """100,000 arrays inside one another are a bad argument where anything at all may stand."""

    class Anything(cm.Interface):
        @cm.method
        def put(self, thing: Any) -> bool: ...

    class Sink(Anything):
        def put(self, thing):
            return True

    with cm.Entrypoint("deep") as entrypoint:
        deep = entrypoint.manage(Sink())
        with by_hand.knock(deep) as channel:
            channel.send(by_hand.call(deep, method=b"put", payload=DEEP))
            assert by_hand.failure(channel) is Code.ARGUMENT
        assert deep.cast(Anything).put([[[1]]]) is True


def test_the_parser_survives_any_bytes(near, capability):
    """Records of every kind with bytes at random get an answer or the end, and the server lives."""
    import random

    for seed in range(300):
        chance = random.Random(seed)
        record = bytearray(by_hand.call(capability, method=b"count", entries=[(0, NO_BADGE)], descriptors=1))
        for _ in range(chance.randrange(1, 6)):
            record[chance.randrange(len(record))] = chance.randrange(256)
        with by_hand.knock(capability) as channel, by_hand.temporary() as file:
            by_hand.send(channel, bytes(record), [file.fileno()] * chance.randrange(3))
            record, descriptors = by_hand.answer(channel)
            assert not descriptors
    assert by_hand.lives(near, capability)


@pytest.mark.usefixtures("freed_memory_is_given_back")
def test_memory_does_not_grow_with_what_a_client_sends(fork, until):
    """Thousands of calls of a hostile kind leave the server as large as it was, and its table as full."""
    with by_hand.server_process(fork, _Measured) as (_process, capability):
        proxy = capability.cast(Measure)

        def abuse(rounds):
            with by_hand.knock(capability) as near, by_hand.temporary() as file:
                for _ in range(rounds):
                    by_hand.send(near, by_hand.call(capability, descriptors=1, badge=os.urandom(16)), [file.fileno()])
                    by_hand.answer(near)
                    by_hand.send(near, by_hand.call(capability, method=os.urandom(8), descriptors=1), [file.fileno()])
                    by_hand.answer(near)
                    by_hand.send(near, by_hand.call(capability, version=9), [file.fileno()])
                    by_hand.answer(near)

        _, table = proxy.measure()
        abuse(200)
        # An ended channel's end is closed together with others of its time: a little later, so it may be counted still.
        until(lambda: proxy.measure()[1] == table)
        memory, _ = proxy.measure()
        abuse(3000)
        until(lambda: proxy.measure()[1] == table)
        memory_after, _ = proxy.measure()
        assert memory_after - memory < 4 << 20


class Measure(cm.Interface):
    @cm.method
    def measure(self) -> tuple[int, int]: ...


class _Measured(Measure):
    def measure(self):
        """Bytes resident, and descriptors open."""
        assert _reaper.wait(PATIENCE)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - it counts
