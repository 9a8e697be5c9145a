"""What holders of a door can do to it, and to each other: knocks of every kind, a full queue, a door that is shut."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import sys
import termios
import threading
import time

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper as _reaper
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code
from served import Notes, serving
from waiting_thread import polls

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE


@pytest.fixture
def capability():
    with by_hand.serving() as made:
        yield made


def is_served(capability):
    """A client that has no channel yet is let in, and served."""
    with by_hand.knock(capability) as near:
        near.send(by_hand.call(capability))
        return bytes(by_hand.answer(near)[0].payload) == b"\x2a"


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"x",
        _wire.KNOCK_RECORD[:-1],
        _wire.KNOCK_RECORD + b"x",
        bytes(16),
        b"\xff" * 16,
        bytes([9]) + _wire.KNOCK_RECORD[1:] + b"x",
        bytes(100_000),
    ],
    ids=lambda record: f"{len(record)}-{record[:2].hex()}",
)
def test_what_is_no_knock_is_refused(capability, record):
    """An empty, short, long, foreign or huge record: its channel ends at once, and the door stays open."""
    with by_hand.knock(capability, record) as near:
        assert by_hand.ended(near)
    assert is_served(capability)


@pytest.mark.parametrize("version", [0, _wire.VERSION - 1, _wire.VERSION + 1, 255])
def test_a_knock_of_another_version_is_taken(capability, version):
    """Its client's call is answered, and that says which version is spoken: refused, it would knock for ever."""
    with by_hand.knock(capability, bytes([version]) + _wire.KNOCK_RECORD[1:]) as near:
        near.send(by_hand.call(capability, version=version))
        fault, _ = by_hand.answer(near)
        assert fault.code is Code.MALFORMED
        assert fault.message == f"version {version} of the protocol; this is version {_wire.VERSION}"


@pytest.mark.parametrize("count", [0, 2, 3, 253])
def test_a_knock_brings_one_descriptor(capability, count, open_descriptors, until):
    """Without one, or with others beside it, it is refused; all of them are closed."""
    assert is_served(capability)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.settimeout(PATIENCE)
        before = open_descriptors()
        by_hand.at_door(capability, _wire.KNOCK_RECORD, [far.fileno()] * count)
        assert is_served(capability)
        until(lambda: open_descriptors() <= before)
        far.close()
        assert by_hand.ended(near)


@pytest.mark.parametrize("kind", ["TCP", "file", "DGRAM", "STREAM", "device", "pipe"])
def test_a_knock_with_another_kind_of_descriptor_is_refused(capability, kind, until, open_descriptors):
    """Only an AF_UNIX SEQPACKET socket is a channel."""
    assert is_served(capability)
    before = open_descriptors()
    with contextlib.ExitStack() as stack:
        number = {
            "TCP": lambda: stack.enter_context(socket.socket()).fileno(),
            "file": lambda: stack.enter_context(by_hand.temporary(b"x")).fileno(),
            "DGRAM": lambda: stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).fileno(),
            "STREAM": lambda: stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)).fileno(),
            "device": lambda: os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),
            "pipe": lambda: stack.enter_context(by_hand.pipe())[0].fileno(),
        }[kind]()
        if kind == "device":
            stack.callback(os.close, number)
        by_hand.at_door(capability, _wire.KNOCK_RECORD, [number])
        assert is_served(capability)
    until(lambda: open_descriptors() <= before)


@pytest.mark.parametrize(
    "kind", ["unconnected", "listening", "listening, and somebody waits", "the door", "the near end too"]
)
def test_a_knock_with_an_odd_socket_of_the_right_kind_costs_nobody_anything(capability, kind):
    """It may be taken for a channel: then it is one that nobody gets anything from."""
    with contextlib.ExitStack() as stack:
        odd = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        numbers = [odd.fileno()]
        if kind.startswith("listening"):
            odd.bind(b"")
            odd.listen()
            if kind != "listening":
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                waiting.connect(odd.getsockname())
        elif kind == "the door":
            numbers = [open_door_of(capability).number]
        elif kind == "the near end too":
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(near)
            stack.enter_context(far)
            numbers = [near.fileno(), far.fileno()]
        for number in numbers:
            by_hand.at_door(capability, _wire.KNOCK_RECORD, [number])
        if kind == "the near end too":
            # What it says at one end, the server hears at both: a FAIL to the other, which ends it.
            near.send(b"\x09" * 20)
            far.send(b"\x09" * 20)
        assert is_served(capability)
        assert idle_now()


def idle_now():
    """Whether this process, whose entrypoints have nothing to do, uses little of a processor for a while."""
    pause = threading.Event()
    used, began = time.process_time(), time.monotonic()
    pause.wait(0.3)
    return time.process_time() - used < 0.5 * (time.monotonic() - began)


def test_a_thousand_knocks_are_bounded(fork):
    """One process gets so many channels and no more, and another client is served all the while."""

    def flood():
        kept = []
        refused = 0
        for _ in range(1000):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            near.settimeout(PATIENCE)
            by_hand.at_door(capability, _wire.KNOCK_RECORD, [far.fileno()])
            far.close()
            kept.append(near)
        for near in kept:
            try:
                near.send(by_hand.call(capability))
                refused += by_hand.answer(near)[0] is None
            except (BrokenPipeError, ConnectionResetError):
                refused += 1
        return refused

    with cm.Entrypoint("popular", limits=cm.Limits(channels=600)) as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        child = fork(flood)
        for _ in range(50):
            assert is_served(capability)
        assert child.result() == 1000 - 200
        assert is_served(capability)


def test_a_flood_of_junk_knocks_does_not_shut_others_out(capability, fork, until, open_descriptors):
    """While a process floods the door with knocks of 253 sockets each, others are let in and served."""
    assert is_served(capability)
    before = open_descriptors()

    def flood():
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, two, socket.socket(fileno=os.dup(open_door_of(capability).number)) as door:
            while True:
                by_hand.send(door, b"junk", [one.fileno()] * 253)

    child = fork(flood)
    try:
        for _ in range(10):
            assert is_served(capability)
        with cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(3) == 6
    finally:
        child.kill()
    # One idle channel of the call above, and the pidfd of who made it.
    until(lambda: len(open_descriptors() - before) <= 3)


def test_whoever_knocks_takes_the_first_place_that_is_free(impostor, until):
    """Before the kernel says that there is room: who never waits for that would always be first."""

    def queued():
        size = bytearray(4)
        fcntl.ioctl(open_door_of(impostor.capability).number, termios.TIOCOUTQ, size)
        return int.from_bytes(size, sys.byteorder)

    def call():
        with cm.timeout(PATIENCE):
            return impostor.capability.cast(by_hand.Work).double(4)

    by_hand.at_door(impostor.capability, b"x")
    one = queued()
    os.set_blocking(open_door_of(impostor.capability).number, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            by_hand.at_door(impostor.capability, b"x")
    full = queued()
    calling = by_hand.Concurrent(call)
    until(lambda: polls(calling))
    impostor.end.recv(2)
    until(lambda: queued() > full - one)
    by_hand.answer_first_knock(impostor)
    assert calling.outcome() == 8


def test_a_door_that_a_holder_shuts_is_shut_for_newcomers_only(capability):
    """Open channels go on, the server does not spin, and a new client is told at once."""
    with cm.timeout(PATIENCE), by_hand.knock(capability) as near:
        near.send(by_hand.call(capability))
        assert by_hand.answer(near)[0] is not None
        proxy = capability.cast(by_hand.Work)
        assert proxy.double(2) == 4
        with socket.socket(fileno=os.dup(open_door_of(capability).number)) as door:
            door.shutdown(socket.SHUT_WR)
        assert proxy.double(3) == 6
        near.send(by_hand.call(capability, id=2))
        assert by_hand.answer(near)[0].id == 2
        assert idle_now()
        open_door_of(capability).idle.clear()
        with pytest.raises(cm.Disconnected) as caught:
            proxy.double(4)
        assert caught.value.ran == "no"


def test_a_door_that_cannot_be_watched_is_tried_again(monkeypatch):
    """No memory for it in the kernel, when it opens after a pause: whoever knocks waits a moment longer."""
    with serving() as served, cm.timeout(PATIENCE):
        server, slots = served.entrypoint._service._server, served.channels.slots
        proxy = served.capability.cast(Notes)
        # Its process has a channel, and is watched.
        proxy.note("first")
        failed, watch = [], slots._watch

        def fail_at_first(number, peer, *others):
            if len(failed) == 3:
                return watch(number, peer, *others)
            failed.append(peer)
            return 0, -errno.ENOMEM

        monkeypatch.setattr(slots, "_watch", fail_at_first)
        # In the serving thread.
        served.book.look = server._doorkeeper.watch.pause
        proxy.note("pause")
        served.book.look = lambda: None
        # Kept, not closed: its end would give back its process's place between two attempts, for the next to take.
        idle = open_door_of(served.capability).idle
        kept = [idle.pop() for _ in range(len(idle))]
        assert proxy.double(1) == 2
        assert len(failed) == 3
        assert kept
        # The place in the ring of turns was given back each time.
        assert len(set(failed)) == 1


def test_knobs_of_a_door_that_a_holder_turns_change_nothing(capability):
    """A send buffer of 1, O_NONBLOCK and timeouts on the shared socket harm no call."""
    with socket.socket(fileno=os.dup(open_door_of(capability).number)) as door, cm.timeout(PATIENCE):
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        door.setblocking(False)
        proxy = capability.cast(by_hand.Work)
        assert proxy.double(1) == 2
        assert len(proxy.blob(100_000)) == 100_000
        open_door_of(capability).idle.clear()
        assert proxy.double(2) == 4
        assert is_served(capability)


def test_a_holder_that_reads_from_the_door_gets_nothing(capability):
    """Nothing is ever sent to a client end, and a knock cannot be read back."""
    with socket.socket(fileno=os.dup(open_door_of(capability).number)) as door:
        assert is_served(capability)
        door.setblocking(False)
        with pytest.raises(BlockingIOError):
            door.recv(1)


def test_a_full_door_lets_others_in_once_it_is_served(fork):
    """A holder fills the queue of a door that nobody serves: the next waits, and gets in when somebody does."""
    entrypoint = cm.Entrypoint("late")
    capability = entrypoint.manage(by_hand.Worker())
    with socket.socket(fileno=os.dup(open_door_of(capability).number)) as door:
        door.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                door.send(b"junk")
        door.setblocking(True)
        with pytest.raises(cm.CallTimeout), cm.timeout(0.05):
            capability.cast(by_hand.Work).double(1)
    with entrypoint, cm.timeout(PATIENCE):
        assert capability.cast(by_hand.Work).double(1) == 2
    capability.close()


def test_a_holder_cannot_bind_or_connect_itself_to_be_the_server(capability):
    """connect() to the door's name, to nothing, and listen() on the door are refused by the kernel."""
    with socket.socket(fileno=os.dup(open_door_of(capability).number)) as door:
        name = door.getpeername()
        for act in (lambda: door.connect(name), lambda: door.listen(), lambda: _connect_to_nothing(door)):
            with pytest.raises(OSError, match=r"Invalid|connected|refused"):
                act()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger, pytest.raises(ConnectionRefusedError):
            stranger.connect(name)
    assert is_served(capability)


def _connect_to_nothing(door):
    result = cm.lx.connect(door.fileno(), bytes(16), 16)
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def test_nobody_is_signalled_by_a_channel_that_ends(capability):
    """No SIGPIPE, not even where it is not ignored."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with by_hand.knock(capability) as near:
            near.send(by_hand.call(capability, b"blob", b"\x91\xcd\x75\x30"))
        assert is_served(capability)
        with cm.Entrypoint("gone") as gone:
            lost = gone.manage(by_hand.Worker())
        with pytest.raises(cm.Disconnected):
            lost.cast(by_hand.Work).double(1)
        lost.close()
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert _reaper.wait(PATIENCE)
