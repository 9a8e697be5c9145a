"""What holders of a grant can do to it, to each other and to its server, by raw records: no more than they may."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import socket
import struct
import time
import weakref

import msgspec
import pytest

import by_hand
import capmarshal as cm
import parts_by_hand
from by_hand import Work, Worker
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._protocol import faults, wire
from capmarshal._protocol.parts import PART_BYTES
from patience import PATIENCE, until


def is_unread(near):
    """Whether a client by hand hears that its call was not read, and the channel's end."""
    try:
        while (record := by_hand.answer(near)[0]) is not None:
            assert record == wire.Gone()
    except ConnectionResetError:
        pass
    return True


def test_a_call_that_is_on_its_way_when_its_grant_is_revoked(entrypoint):
    """Announced, and not whole: it is told at once, and not when all of it has come, if ever."""
    granted, root = entrypoint.grant(Worker()), entrypoint.manage(Worker()).cast(Work)
    record = by_hand.call(granted, b"size", b"\x91\xc6" + (8 * PART_BYTES).to_bytes(4) + bytes(8 * PART_BYTES))
    with by_hand.knock(granted) as near:
        (begin, _, _), (first, _, _), *_ = parts_by_hand.pieces(record)
        by_hand.send(near, begin)
        by_hand.send(near, first)
        assert root.double(1) == 2
        entrypoint.revoke(granted, "over")
        assert is_unread(near)
    until(lambda: not entrypoint._service.grants._revoked)


def test_an_object_goes_with_its_last_grant_whoever_keeps_a_channel(entrypoint):
    """Who never takes an answer has the channel, and not the object behind it."""
    target = Worker()
    granted, root = entrypoint.grant(target), entrypoint.manage(Worker()).cast(Work)
    with by_hand.knock(granted) as near:
        near.send(by_hand.call(granted, b"blob", b"\x91\xce\x01\x00\x00\x00"))
        # Of its answer the beginning comes, and no more fits into the queue than a part of it.
        assert isinstance(by_hand.answer(near)[0], wire.Begin)
        entrypoint.revoke(granted)
        last = weakref.ref(target)
        del target
        assert root.double(1) == 2
        gc.collect()
        assert last() is None
        assert entrypoint._service.grants._revoked


def encoded(*arguments):
    return msgspec.msgpack.encode(arguments)


# Calls of a capability in a record of each kind; the record, and what comes with it.
KINDS = {
    "data": lambda work, _: (by_hand.call(work), []),
    "limited": lambda work, _: (by_hand.call(work, left=10**11, sent=time.monotonic_ns()), []),
    "in order": lambda work, file: (by_hand.call(work, b"count", encoded([0]), [(0, bytes(16))], 1), [file]),
    "table": lambda work, _: (
        by_hand.call(work, b"take", encoded(0), [(0, badge_of(work))], 1),
        [open_door_of(work).number],
    ),
    "table, with nothing beside": lambda work, _: (
        by_hand.call(work, b"maybe", encoded([0, None]), [(0, badge_of(work))], 1),
        [open_door_of(work).number],
    ),
    "long": lambda work, _: (by_hand.call(work, b"size", encoded(bytes(4 * PART_BYTES))), []),
    "long and limited": lambda work, _: (
        by_hand.call(work, b"size", encoded(bytes(4 * PART_BYTES)), left=10**11, sent=time.monotonic_ns()),
        [],
    ),
    "long, with files": lambda work, file: (
        by_hand.call(work, b"count", encoded(list(range(300))), [(slot, bytes(16)) for slot in range(300)], 300),
        [file] * 300,
    ),
}


def tell(near, record, numbers):
    """Sends a record, in parts where it is long."""
    if len(record) > PART_BYTES or len(numbers) > 253:
        parts_by_hand.send_long(near, record, numbers)
    else:
        by_hand.send(near, record, numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_badge_through_another_door_in_records_of_every_kind(entrypoint, memfd, kind):
    """No object is found by it, whichever of the two doors is the entrypoint's own."""
    root, one, other = entrypoint.manage(Worker()), entrypoint.grant(Worker()), entrypoint.grant(Worker())
    for door in (root, one, other):
        for badge in (root, one, other):
            work = space.capability(open_door_of(door), badge_of(badge))
            record, numbers = KINDS[kind](work, memfd.fileno())
            with by_hand.knock(work) as near:
                tell(near, record, numbers)
                heard, _ = by_hand.answer(near)
            assert isinstance(heard, wire.Reply) if door is badge else heard.code == faults.Code.STALE


def test_a_badge_of_another_door_as_an_argument(entrypoint):
    """It comes home to nothing: what is passed on can be called through its own door only, too."""
    root, one, other = entrypoint.manage(Worker()), entrypoint.grant(Worker()), entrypoint.grant(Worker())
    for door in (root, one, other):
        for badge in (root, one, other):
            with by_hand.knock(root) as near:
                record = by_hand.call(root, b"take", encoded(0), [(0, badge_of(badge))], 1)
                by_hand.send(near, record, [open_door_of(door).number])
                heard, _ = by_hand.answer(near)
            assert isinstance(heard, wire.Reply) if door is badge else heard.code == faults.Code.STALE


@contextlib.contextmanager
def client_end(granted):
    """A holder's copy of a door, as a socket."""
    with socket.socket(fileno=os.dup(open_door_of(granted).number)) as door:
        yield door


def drop_all(door):
    """A filter that lets nothing in (socket(7))."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    so_attach_filter = 26
    door.setsockopt(socket.SOL_SOCKET, so_attach_filter, struct.pack("@HP", 1, ctypes.addressof(code)))


def peek_from(offset):
    so_peek_off = 42
    return lambda door: door.setsockopt(socket.SOL_SOCKET, so_peek_off, offset)


# What a holder does to the door that others hold, before it is revoked or after; and what they are told then.
ACTS = {
    "looks at it": (None, lambda door: door.recv(1, socket.MSG_PEEK), cm.Revoked),
    "has looks moved": (peek_from(0), None, cm.Revoked),
    "has looks be far behind": (peek_from(1 << 20), None, cm.Revoked),
    "has it not block": (lambda door: door.setblocking(False), None, cm.Revoked),
    "has it block": (lambda door: door.settimeout(None), None, cm.Revoked),
    "takes its error": (None, lambda door: door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), cm.Revoked),
    "names it": (lambda door: door.bind(b"\0capmarshal test/%d" % os.getpid()), None, cm.Revoked),
    "floods it": (lambda door: [door.send(b"x") for _ in range(64)], None, cm.Revoked),
    "writes what it says": (lambda door: door.send(wire.EPITAPH_HEAD + b"forged"), None, cm.Revoked),
    "takes part of it": (None, lambda door: door.recv(1), cm.Disconnected),
    "takes it": (None, lambda door: door.recv(2000), cm.Disconnected),
    "filters it": (drop_all, None, cm.Disconnected),
    "shuts its reading side": (lambda door: door.shutdown(socket.SHUT_RD), None, cm.Disconnected),
    "shuts its writing side": (lambda door: door.shutdown(socket.SHUT_WR), None, cm.Disconnected),
    "shuts it": (lambda door: door.shutdown(socket.SHUT_RDWR), None, cm.Disconnected),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_one_holder_does_to_a_door_before_others_find_it_revoked(entrypoint, fork, act):
    """They are told, or find the server gone: neither do they wait, nor hear what a holder says."""
    before, after, expected = ACTS[act]
    granted, other = entrypoint.grant(Worker()), entrypoint.grant(Worker())

    def do(what):
        if what is not None:
            with client_end(granted) as door:
                what(door)

    fork(lambda: do(before)).result()
    if act == "shuts its writing side":
        # Nobody can knock any more: it is over when the server finds that, and till then it can be revoked.
        until(lambda: len(entrypoint._service.grants._in_force) == 1)
    entrypoint.revoke(granted, "over")
    fork(lambda: do(after)).result()

    def call():
        said = set()
        for _ in range(3):
            with pytest.raises(expected) as caught, cm.timeout(PATIENCE):
                granted.cast(Work).double(1)
            assert caught.value.ran == "no"
            said.add("over" in str(caught.value))
        return said

    assert fork(call).result() == {expected is cm.Revoked}
    assert call() == {expected is cm.Revoked}
    # Nobody else has noticed.
    assert other.cast(Work).double(1) == 2


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_nobody_sends_to_those_who_hold_a_door(entrypoint, kind):
    """Whatever name a holder gives to it: it is connected, and to the server, which alone could forge what it says."""
    granted = entrypoint.grant(Worker())
    name = b"\0capmarshal test/%d" % os.getpid()
    with client_end(granted) as door, socket.socket(socket.AF_UNIX, kind) as stranger:
        door.bind(name)
        with pytest.raises(ConnectionRefusedError):
            stranger.connect(name)
        with pytest.raises(OSError, match=r"refused|not connected|not supported"):
            stranger.sendto(wire.EPITAPH_HEAD, name)
        with pytest.raises(OSError, match="Invalid argument"):
            door.listen()
        with pytest.raises(OSError, match=r"refused|already"):
            door.connect(name)
        assert granted.cast(Work).double(1) == 2
        with pytest.raises(BlockingIOError):
            door.recv(1, socket.MSG_DONTWAIT)


def test_a_flood_at_many_doors_takes_no_more_turns_than_one_at_one(entrypoint):
    """Who holds many grants, and knocks at all of them: a call of another waits for a few knocks, not for all."""
    root = entrypoint.manage(Worker())
    held = [entrypoint.grant(Worker()) for _ in range(64)]
    knocks, taken = entrypoint._service._server._knocks, []
    take = knocks.take

    def count(door, grant):
        taken.append(grant)
        return take(door, grant)

    class Counting(Worker):
        def double(self, value):
            return len(taken)

    counted = entrypoint.grant(Counting())
    with by_hand.knock(counted) as near:
        near.send(by_hand.call(counted))
        by_hand.answer(near)
        knocks.take = count
        with by_hand.busy(root):
            for granted in held:
                by_hand.at_door(granted, b"junk")
                by_hand.at_door(granted, b"junk")
            near.send(by_hand.call(counted))
        reply, _ = by_hand.answer(near)
        until(lambda: len(taken) >= 2 * len(held))
        del knocks.take
    assert msgspec.msgpack.decode(reply.payload) < len(held)


def test_a_grant_whose_door_a_holder_has_shut_can_be_revoked_at_any_moment(entrypoint):
    """Also when nobody can reach it any more, and its door is about to be closed: it is over."""
    for _ in range(200):
        told = []
        granted = entrypoint.grant(Worker(), unreachable=told.append)
        with client_end(granted) as door:
            door.shutdown(socket.SHUT_WR)
        until(lambda told=told: told)
        entrypoint.revoke(granted, "over")


def end_of(call):
    """What calls end by that are made again and again."""
    try:
        with cm.timeout(PATIENCE):
            while True:
                call()
    except cm.Error as error:
        return type(error).__name__, getattr(error, "ran", ""), "over" in str(error)


def test_revoking_ends_calls_of_every_kind_in_three_processes_at_once(entrypoint, fork, memfd):
    """What is in progress is answered, so that each ends with one that has not run: short, long, with descriptors."""
    granted = entrypoint.grant(Worker())

    def work(called):
        proxy = granted.cast(Work)
        calls = [
            lambda: proxy.double(1),
            lambda: proxy.count([memfd]),
            lambda: proxy.echo(memfd).close(),
            lambda: proxy.size(bytes(1 << 20)),
            lambda: proxy.blob(1 << 20),
            lambda: [pipe.close() for pipe in proxy.pipes(300)],
        ]
        for call in calls:
            call()
        threads = [by_hand.Concurrent(end_of, call) for call in calls]
        called.write(b".")
        return {thread.outcome() for thread in threads}

    with by_hand.pipe() as (called, calling):
        children = [fork(lambda: work(calling)) for _ in range(3)]
        for _ in children:
            assert called.read(1) == b"."
        entrypoint.revoke(granted, "over")
        assert [child.result() for child in children] == [{("Revoked", "no", True)}] * 3
    until(lambda: not entrypoint._service.grants._revoked)
