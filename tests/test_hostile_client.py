"""What a hostile client gets that speaks to an entrypoint by hand: an answer or the end, and nobody else pays."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._descriptors import reaper as _reaper
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

from_hand = by_hand.knock
PATIENCE = by_hand.PATIENCE
# include/uapi/asm-generic/socket.h; this Python does not name them.
SO_SNDBUFFORCE, SO_PASSPIDFD, SO_PASSRIGHTS = 32, 76, 83
NO_BADGE = _wire.NO_BADGE


@pytest.fixture(autouse=True)
def quiet(caplog):
    """A log record that pytest keeps would keep what is in its traceback, and that is counted as a leak."""
    caplog.set_level(logging.CRITICAL, "capmarshal")


@pytest.fixture
def worker():
    return by_hand.Worker()


@pytest.fixture
def capability(worker):
    with by_hand.serving(worker) as made:
        yield made
        # Whatever a test did: another client is still served.
        with cm.timeout(PATIENCE):
            assert made.cast(by_hand.Work).double(4) == 8
        # pytest still holds it when the descriptors are counted.
        made.close()
        worker.held.clear()


@pytest.fixture
def near(capability):
    with by_hand.knock(capability) as channel:
        yield channel


def lives(near, capability):
    """Whether the channel still carries calls."""
    near.send(by_hand.call(capability, id=77))
    record, descriptors = by_hand.answer(near)
    return record.id == 77 and bytes(record.payload) == b"\x2a" and not descriptors


def test_a_call_made_by_hand_is_answered(near, capability):
    """The measure of all below: what a correct record gets."""
    assert lives(near, capability)


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
    assert lives(near, capability)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 0},
        {"version": 2},
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
    assert lives(near, capability)


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
    assert lives(near, capability)


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
    assert lives(near, capability)


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


@pytest.mark.parametrize(
    "index",
    [
        b"\xff",
        b"\xd3" + b"\xff" * 8,
        b"\xc3",
        b"\xc2",
        b"\xca\x00\x00\x00\x00",
        b"\xa10",
        b"\x02",
        b"\xcf" + b"\xff" * 8,
        b"\x90",
        b"\x80",
    ],
    ids=["-1", "-1 wide", "true", "false", "0.0", "string", "past the end", "2**64-1", "array", "map"],
)
@pytest.mark.parametrize("method", [b"echo", b"take"])
def test_an_index_that_is_none_is_a_bad_argument(near, capability, method, index):
    """Only an integer within the table stands for a descriptor or capability; what came is closed."""
    with by_hand.pipe() as (reader, writer):
        near_entries = [(0, NO_BADGE), (1, b"x" * 16)]
        by_hand.send(
            near,
            by_hand.call(capability, method=method, payload=b"\x91" + index, entries=near_entries, descriptors=2),
            [writer.fileno(), open_door_of(capability).number],
        )
        assert by_hand.failure(near) is Code.ARGUMENT
        writer.close()
        by_hand.at_end(reader)
    assert lives(near, capability)


@pytest.mark.parametrize("payload", [b"\x91\x92\x00\x00", b"\x91\x93\x00\x01\x00"], ids=["twice", "twice, later"])
def test_an_index_used_twice_is_a_bad_argument(near, capability, payload):
    """One descriptor never gets two owners; all that came are closed."""
    with by_hand.pipe() as (reader, writer):
        record = by_hand.call(
            capability, method=b"count", payload=payload, entries=[(0, NO_BADGE), (1, NO_BADGE)], descriptors=2
        )
        by_hand.send(near, record, [writer.fileno(), writer.fileno()])
        assert by_hand.failure(near) is Code.ARGUMENT
        writer.close()
        by_hand.at_end(reader)
    assert lives(near, capability)


@pytest.mark.parametrize(
    "entries",
    [
        [(0, NO_BADGE), (0, NO_BADGE)],
        [(0, NO_BADGE), (0, b"x" * 16)],
        [(0, b"x" * 16), (0, NO_BADGE)],
        [(2, NO_BADGE), (1, NO_BADGE)],
        [(65535, NO_BADGE), (1, NO_BADGE)],
    ],
    ids=str,
)
def test_a_table_that_gives_a_descriptor_to_two_or_to_none_is_malformed(near, capability, entries):
    """Slots of the table are checked before anything is made of them."""
    with by_hand.pipe() as (reader, writer):
        record = by_hand.call(capability, method=b"count", payload=b"\x91\x92\x00\x01", entries=entries, descriptors=2)
        by_hand.send(near, record, [writer.fileno(), writer.fileno()])
        assert by_hand.failure(near) is Code.MALFORMED
        writer.close()
        by_hand.at_end(reader)
    assert lives(near, capability)


@pytest.mark.parametrize(("announced", "sent"), [(0, 1), (1, 0), (1, 2), (2, 1), (252, 253), (253, 252), (1, 253)])
def test_a_lying_count_of_descriptors_is_malformed(near, capability, announced, sent):
    """More or fewer than announced: an error of that call, and what came is closed."""
    with by_hand.pipe() as (reader, writer):
        entries = [(0, NO_BADGE)] if announced else []
        payload = b"\x91\x91\x00" if announced else b"\x91\x90"
        record = by_hand.call(capability, method=b"count", payload=payload, entries=entries, descriptors=announced)
        by_hand.send(near, record, [writer.fileno()] * sent)
        assert by_hand.failure(near) is Code.MALFORMED
        writer.close()
        by_hand.at_end(reader)
    assert lives(near, capability)


def test_descriptors_that_nothing_refers_to_are_closed(near, capability):
    """253 of them come with a call that has no use for any: it runs, and they are closed."""
    with by_hand.pipe() as (reader, writer):
        record = by_hand.call(capability, descriptors=253)
        by_hand.send(near, record, [writer.fileno()] * 253)
        assert bytes(by_hand.answer(near)[0].payload) == b"\x2a"
        writer.close()
        by_hand.at_end(reader)
    assert lives(near, capability)


def test_an_index_of_a_capability_used_twice_is_a_bad_argument(near, capability):
    """Nor does a capability, though its door could be shared."""
    record = by_hand.call(capability, b"maybe", b"\x91\x92\x00\x00", [(0, badge_of(capability))], 1)
    by_hand.send(near, record, [open_door_of(capability).number])
    assert by_hand.failure(near) is Code.ARGUMENT
    assert lives(near, capability)


def wrong_kinds():
    """What is no client end of a door, by name."""
    yield "file", lambda stack, ends: stack.enter_context(by_hand.temporary(b"x"))
    yield "directory", lambda stack, ends: os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    yield "TCP", lambda stack, ends: stack.enter_context(socket.socket())
    yield "UDP", lambda stack, ends: stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    yield "unix DGRAM", lambda stack, ends: ends(socket.SOCK_DGRAM)
    yield "unix STREAM", lambda stack, ends: ends(socket.SOCK_STREAM)
    yield "unconnected", lambda stack, ends: stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))


@pytest.mark.parametrize(("kind", "make"), list(wrong_kinds()), ids=[kind for kind, _ in wrong_kinds()])
def test_what_is_no_door_is_refused_where_a_capability_is_due(near, capability, kind, make, make_pair):
    """Whatever cookie it may have: only a connected AF_UNIX SEQPACKET socket stands for a capability."""
    with contextlib.ExitStack() as stack:
        thing = make(stack, lambda kind: make_pair(kind)[0])
        number = thing if isinstance(thing, int) else thing.fileno()
        if isinstance(thing, int):
            stack.callback(os.close, thing)
        record = by_hand.call(
            capability, method=b"take", payload=b"\x91\x00", entries=[(0, badge_of(capability))], descriptors=1
        )
        by_hand.send(near, record, [number])
        assert by_hand.failure(near) is Code.ARGUMENT
        assert lives(near, capability)


def test_a_servers_end_is_refused_where_a_capability_is_due(near, capability):
    """Nobody may call through it, so nobody gets it for a capability: its own and another's."""
    from capmarshal._descriptors.process import process

    with cm.Entrypoint("other") as other:
        for entrypoint_end in [
            private.number
            for private in list(process.privates)
            if private.number >= 0 and not private.epoll and _named(private.number)
        ]:
            record = by_hand.call(
                capability, method=b"take", payload=b"\x91\x00", entries=[(0, b"x" * 16)], descriptors=1
            )
            by_hand.send(near, record, [entrypoint_end])
            assert by_hand.failure(near) is Code.ARGUMENT
        assert not other.closed
    assert lives(near, capability)


def _named(number):
    with cm.Descriptor.dup_of(number) as copy, contextlib.suppress(OSError), copy.socket() as sock:
        return sock.family == socket.AF_UNIX and bool(sock.getsockname())
    return False


def test_a_plain_descriptor_and_a_capability_do_not_stand_for_each_other(near, capability):
    """Which of them an entry is stands in the table, and the annotation has to agree."""
    door = open_door_of(capability).number
    by_hand.send(
        near,
        by_hand.call(capability, method=b"take", payload=b"\x91\x00", entries=[(0, NO_BADGE)], descriptors=1),
        [door],
    )
    assert by_hand.failure(near) is Code.ARGUMENT
    by_hand.send(
        near,
        by_hand.call(capability, method=b"echo", payload=b"\x91\x00", entries=[(0, b"x" * 16)], descriptors=1),
        [door],
    )
    assert by_hand.failure(near) is Code.ARGUMENT
    assert lives(near, capability)


def test_a_guessed_badge_selects_nothing(near, capability):
    """128 bits at random, a wrong bit, and the badge that is none."""
    flipped = bytes([badge_of(capability)[0] ^ 1]) + badge_of(capability)[1:]
    for badge in (os.urandom(16), flipped, NO_BADGE, b"\xff" * 16):
        near.send(by_hand.call(capability, badge=badge))
        assert by_hand.failure(near) is Code.STALE
    assert lives(near, capability)


def test_a_stale_badge_selects_nothing(near):
    """A capability of an object that was dissolved: as a target and as an argument."""
    with cm.Entrypoint("stale") as entrypoint:
        gone, stays = by_hand.Worker(), by_hand.Worker()
        capability, other = entrypoint.manage(gone), entrypoint.manage(stays)
        entrypoint.dissolve(gone)
        with pytest.raises(cm.StaleCapability):
            capability.cast(by_hand.Work).double(1)
        with pytest.raises(cm.StaleCapability):
            other.cast(by_hand.Work).take(capability)
        assert entrypoint.manage(gone) != capability
        assert stays.held == []


def test_a_guessed_badge_that_comes_home_is_refused(near, capability, worker):
    """The server's own door with a badge that it never gave: refused at once, not when it is called."""
    record = by_hand.call(capability, method=b"take", payload=b"\x91\x00", entries=[(0, b"g" * 16)], descriptors=1)
    by_hand.send(near, record, [open_door_of(capability).number])
    assert by_hand.failure(near) is Code.STALE
    assert worker.held == []


def test_a_foreign_socket_with_a_copied_badge_is_never_taken_for_ours(near, capability, worker):
    """It is just a foreign capability: calling it reaches the foreign server, and no object of ours."""
    end, foreign = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with end, foreign:
        record = by_hand.call(
            capability, method=b"take", payload=b"\x91\x00", entries=[(0, badge_of(capability))], descriptors=1
        )
        by_hand.send(near, record, [foreign.fileno()])
        by_hand.answer(near)
        (held,) = worker.held
        assert held != capability
        assert held.local is None
        assert capability.local is worker
        end.settimeout(PATIENCE)
        calling = by_hand.Concurrent(held.cast(by_hand.Work).double, 21)
        _data, (far,), _flags, _ = socket.recv_fds(end, 64, 4)
        with socket.socket(fileno=far) as channel:
            channel.settimeout(PATIENCE)
            assert _wire.unpack(channel.recv(4096)).badge == badge_of(capability)
            channel.send(by_hand.reply(1, b"\x0d"))
            assert calling.outcome() == 13
        assert worker.calls == 0
        worker.held.clear()
        del held, calling


def test_a_peer_cannot_fill_the_table_with_doors_of_its_making(worker, fork):
    """The doors that came from one process are counted, and counted on when it comes back with a new channel."""

    def flood():
        taken = 0
        ends = []
        for _ in range(4):
            with by_hand.knock(capability) as channel:
                for _ in range(30):
                    end, foreign = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    ends.append(end)
                    record = by_hand.call(
                        capability, method=b"take", payload=b"\x91\x00", entries=[(0, b"d" * 16)], descriptors=1
                    )
                    by_hand.send(channel, record, [foreign.fileno()])
                    foreign.close()
                    taken += isinstance(by_hand.answer(channel)[0], _wire.Reply)
            # Its channel is gone at the server before the next one comes.
            with by_hand.knock(capability) as channel:
                channel.send(by_hand.call(capability))
                by_hand.answer(channel)
        return taken

    with cm.Entrypoint("doors", limits=cm.Limits(doors=120)) as entrypoint:
        capability = entrypoint.manage(worker)
        assert fork(flood).result() == 40
        assert len(worker.held) == 40
        # The process has ended, and its doors count for its user, of whom the next process is another: 90 in all.
        assert fork(flood).result() == 40
        assert fork(flood).result() == 10
        worker.held.clear()
        assert fork(flood).result() == 40
        worker.held.clear()


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
    assert lives(near, capability)


def test_what_decoding_raises_of_the_servers_own_classes_is_a_bad_argument(make_pair):
    """A class that checks itself may raise anything at all: the call fails, and the server serves on."""
    import msgspec

    class Odd(msgspec.Struct):
        value: int

        def __post_init__(self):
            raise (KeyError, ZeroDivisionError, AssertionError, StopIteration)[self.value]("odd")

    class Odds(cm.Interface):
        @cm.method
        def put(self, odd: Odd, file: cm.Descriptor) -> int: ...

    class Server(Odds):
        def put(self, odd, file):
            return 1

    Odds.put.__annotations__.update(odd=Odd)
    with cm.Entrypoint("odd") as entrypoint:
        capability = entrypoint.manage(Server())
        with by_hand.knock(capability) as channel:
            for value in range(4):
                with by_hand.pipe() as (reader, writer):
                    record = by_hand.call(
                        capability,
                        method=b"put",
                        payload=b"\x92\x81\xa5value" + bytes([value]) + b"\x00",
                        entries=[(0, NO_BADGE)],
                        descriptors=1,
                    )
                    by_hand.send(channel, record, [writer.fileno()])
                    assert by_hand.failure(channel) is Code.ARGUMENT
                    writer.close()
                    by_hand.at_end(reader)


@pytest.mark.parametrize("words", ["\udc80", "x" * 300_000, "\0"], ids=["surrogate", "huge", "NUL"])
def test_whatever_a_method_raises_is_told(words):
    """An error whose text cannot be encoded, or is too long for a record, is still an answer."""

    class Failing(cm.Interface):
        @cm.method
        def fail(self) -> int: ...

    class Server(Failing):
        def fail(self):
            raise ValueError(words)

    with cm.Entrypoint("failing") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(Server()).cast(Failing)
        for _ in range(2):
            with pytest.raises((cm.RemoteError, cm.RecordTooBig)):
                proxy.fail()


def test_an_error_that_has_no_text_is_told():
    """Not even str() of what a method raised must work."""

    class Bad(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    class Failing(cm.Interface):
        @cm.method
        def fail(self) -> int: ...

    class Server(Failing):
        def fail(self):
            raise Bad

    with cm.Entrypoint("failing") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(Server()).cast(Failing)
        for _ in range(2):
            with pytest.raises(cm.RemoteError, match="Bad"):
                proxy.fail()


def test_a_result_of_more_entries_than_a_table_has_is_refused():
    """65,536 capabilities of one door need one descriptor, but no table is that long: the caller is told."""

    class Many(cm.Interface):
        @cm.method
        def get(self) -> list[cm.Capability]: ...

        @cm.method
        def put(self, what: list[cm.Capability]) -> int: ...

    class Server(Many):
        def get(self):
            return [cm.capability(self)] * 70_000

        def put(self, what):
            return len(what)

    with cm.Entrypoint("many") as entrypoint, cm.timeout(PATIENCE):
        capability = entrypoint.manage(Server())
        proxy = capability.cast(Many)
        for _ in range(2):
            with pytest.raises(cm.Error):
                proxy.get()
            with pytest.raises(cm.ArgumentError):
                proxy.put([capability] * 70_000)
        assert proxy.put([capability] * 1000) == 1000


# What it does to a socket that it shares with the server.


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
        assert lives(near, capability)


def test_flags_of_the_far_end_change_nothing(capability):
    """O_NONBLOCK, O_ASYNC and a receive timeout, set on a copy of the far end, are not trusted."""
    near, far = by_hand.knock(capability, keep_far=True)
    with near, far:
        far.setblocking(False)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 20)
        assert lives(near, capability)
        far.setblocking(True)
        assert lives(near, capability)


@pytest.mark.parametrize(
    "options",
    [(SO_PASSPIDFD,), (socket.SO_PASSCRED,), (29,), (35,), (34,), (SO_PASSPIDFD, socket.SO_PASSCRED, 29, 34)],
    ids=["pidfd", "credentials", "timestamp", "timestamp in ns", "security label", "all"],
)
def test_control_messages_that_a_client_switches_on_cost_the_server_nothing(capability, options, open_descriptors):
    """A pidfd, credentials and time stamps come with each record from then on: none of it stays open."""
    near, far = by_hand.knock(capability, keep_far=True)
    with near, far, by_hand.temporary() as file:
        assert lives(near, capability)
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
                assert lives(other, capability)
        # 212,992 bytes of send buffer at the server: two answers in the queue, one parked.
        assert sent < 2000
        near.setblocking(True)
        near.settimeout(PATIENCE)
        for number in range(1, sent + 1):
            record, _ = by_hand.answer(near)
            assert record.id == number
            assert len(record.payload) > 100_000


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


@pytest.mark.usefixtures("freed_memory_is_given_back")
def test_memory_does_not_grow_with_what_a_client_sends(fork):
    """20,000 calls of a hostile kind leave the server as large as it was, and its table as full."""
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

        abuse(200)
        memory, table = proxy.measure()
        abuse(3000)
        memory_after, table_after = proxy.measure()
        assert memory_after - memory < 4 << 20
        assert table_after == table


class Measure(cm.Interface):
    @cm.method
    def measure(self) -> tuple[int, int]: ...


class _Measured(Measure):
    def measure(self):
        """Bytes resident, and descriptors open."""
        assert _reaper.wait(PATIENCE)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - it counts
