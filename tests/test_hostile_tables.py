"""What a hostile client gets for descriptors, capabilities and badges that are not what they are said to be."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._descriptors.private import Private
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE
NO_BADGE = _wire.NO_BADGE


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
    assert by_hand.lives(near, capability)


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
    assert by_hand.lives(near, capability)


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
    assert by_hand.lives(near, capability)


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
    assert by_hand.lives(near, capability)


def test_descriptors_that_nothing_refers_to_are_closed(near, capability):
    """253 of them come with a call that has no use for any: it runs, and they are closed."""
    with by_hand.pipe() as (reader, writer):
        record = by_hand.call(capability, descriptors=253)
        by_hand.send(near, record, [writer.fileno()] * 253)
        assert bytes(by_hand.answer(near)[0].payload) == b"\x2a"
        writer.close()
        by_hand.at_end(reader)
    assert by_hand.lives(near, capability)


def test_an_index_of_a_capability_used_twice_is_a_bad_argument(near, capability):
    """Nor does a capability, though its door could be shared."""
    record = by_hand.call(capability, b"maybe", b"\x91\x92\x00\x00", [(0, badge_of(capability))], 1)
    by_hand.send(near, record, [open_door_of(capability).number])
    assert by_hand.failure(near) is Code.ARGUMENT
    assert by_hand.lives(near, capability)


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
        assert by_hand.lives(near, capability)


def test_a_servers_end_is_refused_where_a_capability_is_due(near, capability):
    """Nobody may call through it, so nobody gets it for a capability: its own and another's."""
    from capmarshal._descriptors.process import process

    with cm.Entrypoint("other") as other:
        for entrypoint_end in [
            private.number
            for private in list(process.privates)
            if isinstance(private, Private) and private.number >= 0 and not private.epoll and _named(private.number)
        ]:
            record = by_hand.call(
                capability, method=b"take", payload=b"\x91\x00", entries=[(0, b"x" * 16)], descriptors=1
            )
            by_hand.send(near, record, [entrypoint_end])
            assert by_hand.failure(near) is Code.ARGUMENT
        assert not other.closed
    assert by_hand.lives(near, capability)


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
    assert by_hand.lives(near, capability)


def test_a_guessed_badge_selects_nothing(near, capability):
    """128 bits at random, a wrong bit, and the badge that is none."""
    flipped = bytes([badge_of(capability)[0] ^ 1]) + badge_of(capability)[1:]
    for badge in (os.urandom(16), flipped, NO_BADGE, b"\xff" * 16):
        near.send(by_hand.call(capability, badge=badge))
        assert by_hand.failure(near) is Code.STALE
    assert by_hand.lives(near, capability)


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
