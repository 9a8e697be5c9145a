"""Both sides of a call, spoken by hand over raw sockets; and what the tests of bad input and bad luck serve."""

from __future__ import annotations

import array
import contextlib
import io
import os
import select
import socket
import struct
import threading
import time

import awaiting
import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._protocol import faults as _faults
from capmarshal._protocol import wire as _wire
from patience import PATIENCE

HEAD = struct.Struct("=BBHHHQ")
CALL_HEAD = struct.Struct("=BBHHHQQQH16s")


class Work(cm.Interface):
    """What most tests call."""

    @cm.method
    def double(self, value: int) -> int: ...

    @cm.method
    def blob(self, size: int) -> bytes: ...

    @cm.method
    def size(self, data: bytes) -> int: ...

    @cm.method
    def count(self, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def pipes(self, count: int) -> list[cm.Descriptor]: ...

    @cm.method
    def echo(self, file: cm.Descriptor) -> cm.Descriptor: ...

    @cm.method
    def take(self, what: cm.Capability) -> str: ...

    @cm.method
    def maybe(self, what: list[cm.Capability | None]) -> list[int]: ...

    @cm.method
    def block(self, started: cm.Descriptor, go: cm.Descriptor) -> int: ...


class Worker(Work):
    """Serves it; ``held`` keeps the capabilities that came."""

    def __init__(self):
        self.held = []
        self.calls = 0

    def double(self, value):
        self.calls += 1
        return 2 * value

    def blob(self, size):
        return bytes(size)

    def size(self, data):
        return len(data)

    def count(self, files):
        return len({os.fstat(file.fileno()).st_ino for file in files})

    def pipes(self, count):
        made = []
        while len(made) < count:
            made += [cm.Descriptor(number) for number in os.pipe()]
        return made

    def echo(self, file):
        return file

    def take(self, what):
        self.held.append(what)
        return what.label

    def maybe(self, what):
        return [index for index, one in enumerate(what) if one is not None]

    def block(self, started, go):
        """Says that it has begun, and works until the other end of ``go`` is closed."""
        self.calls += 1
        os.write(started.fileno(), b".")
        ready, _, _ = select.select([go.fileno()], [], [], PATIENCE)
        return len(ready)


class AwaitingWorker(Worker):
    """Serves it; a loop that it is served in goes on while block() waits."""

    def block(self, started, go):
        self.calls += 1
        os.write(started.fileno(), b".")
        return int(awaiting.readable(go.fileno(), PATIENCE))


class Register(cm.Interface):
    """How a server in a process of its own hands its capability to the test."""

    @cm.method
    def enter(self, what: cm.Capability) -> None: ...


class Registrar(Register):
    """Serves it."""

    def __init__(self):
        self.arrived = threading.Event()
        self.what = None

    def enter(self, what):
        self.what = what
        self.arrived.set()


@contextlib.contextmanager
def serving(target=None, label="served"):
    """An entrypoint with a thread of its own: the capability of ``target``."""
    with cm.Entrypoint(label) as entrypoint:
        yield entrypoint.manage(Worker() if target is None else target)


@contextlib.contextmanager
def server_process(fork, make=Worker, before=lambda: None, **options):
    """A forked process that serves what ``make()`` makes until it is killed or the block ends, and its capability.

    It does what is to be done ``before`` it has an entrypoint.
    """
    registrar = Registrar()
    ended, hold = os.pipe()
    with cm.Entrypoint("registrar") as entrypoint:
        register = entrypoint.manage(registrar).cast(Register)

        def serve():
            os.close(hold)
            before()
            with cm.Entrypoint("elsewhere") as served:
                # What it opens for a moment, this process has open when its first caller counts.
                with awaiting.call_plainly():
                    register.enter(served.manage(make()))
                select.select([ended], [], [], 4 * PATIENCE)

        child = fork(serve, **options)
        try:
            assert registrar.arrived.wait(PATIENCE), child.result()
            capability, registrar.what = registrar.what, None
            yield child, capability
        finally:
            os.close(hold)
            os.close(ended)
            if child.pid is not None:
                child.result()


# The client's side.


def send(sock, data, descriptors=()):
    """One record, with descriptors."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], control)


def knock(capability, record=_wire.KNOCK_RECORD, *, keep_far=False):
    """A channel of our own making: its near end, and its far one if that is kept."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.settimeout(PATIENCE)
    at_door(capability, record, [far.fileno()])
    if keep_far:
        return near, far
    far.close()
    return near


def at_door(capability, record, descriptors=()):
    """Sends a record through a door."""
    with socket.socket(fileno=os.dup(open_door_of(capability).number)) as door:
        send(door, record, descriptors)


def key(badge, method):
    """The part of a CALL that says what is called."""
    return _wire.pack_size(method) + badge + method


def call(capability, method=b"double", payload=b"\x91\x15", entries=(), descriptors=0, **changed):
    """A CALL record; ``changed`` overrides a field of its head: version, kind, count, cpu, id, length..."""
    field = {
        "version": _wire.VERSION,
        "kind": _wire.CALL,
        "count": len(entries),
        "descriptors": descriptors,
        "cpu": 0,
        "id": 1,
        "left": _wire.NO_LIMIT,
        "sent": 0,
        "length": len(method),
        "badge": badge_of(capability),
    }
    assert field.keys() >= changed.keys()
    table = b"".join(struct.pack("=H16s", slot, badge) for slot, badge in entries)
    return CALL_HEAD.pack(*(field | changed).values()) + method + table + payload


def answer(near):
    """The next record on a channel: a Reply or a Fail's Fault, None at its end; and its descriptors."""
    data, control, _flags, _ = near.recvmsg(1 << 20, socket.CMSG_SPACE(253 * 4))
    descriptors = array.array("i")
    for level, kind, part in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(part)
    if not data:
        return None, list(descriptors)
    record = _wire.unpack(data)
    if isinstance(record, _wire.Fail):
        return _faults._decoder.decode(record.payload), list(descriptors)
    return record, list(descriptors)


def lives(near, capability):
    """Whether the channel still carries calls."""
    near.send(call(capability, id=77))
    record, descriptors = answer(near)
    return record.id == 77 and bytes(record.payload) == b"\x2a" and not descriptors


def failure(near):
    """The code of the FAIL that comes next."""
    fault, descriptors = answer(near)
    assert not descriptors
    return fault.code


def ended(near):
    """Whether the other end of a channel was closed."""
    try:
        return near.recv(1) == b""
    except ConnectionResetError:
        return True


# The server's side.


class Impostor:
    """A door whose server's end is a raw socket: what a hostile server holds."""

    def __init__(self, badge=b"i" * 16):
        self.end, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(PATIENCE)
        descriptor = cm.Descriptor(client.detach())
        self.capability = space.capability(space.receive_door(descriptor, None), badge)

    def accept(self):
        """The channel that the next knock brings."""
        _data, descriptors, _flags, _ = socket.recv_fds(self.end, 64, 4)
        far = socket.socket(fileno=descriptors[0])
        far.settimeout(PATIENCE)
        return far

    def close(self):
        self.end.close()
        self.capability = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def answer_first_knock(impostor):
    """Reads a door until a knock comes, and answers the call on the channel that this brings."""
    descriptors = []
    while not descriptors:
        _, descriptors, _, _ = socket.recv_fds(impostor.end, 64, 4)
    with socket.socket(fileno=descriptors[0]) as far:
        far.settimeout(PATIENCE)
        far.recv(1000)
        far.send(reply(1, b"\x08"))


def reply(call_id, payload=b"\x2a", entries=(), descriptors=0, **changed):
    """A REPLY record; ``changed`` overrides a field of its head."""
    field = {
        "version": _wire.VERSION,
        "kind": _wire.REPLY,
        "count": len(entries),
        "descriptors": descriptors,
        "cpu": 0,
        "id": call_id,
    }
    assert field.keys() >= changed.keys()
    table = b"".join(struct.pack("=H16s", slot, badge) for slot, badge in entries)
    return HEAD.pack(*(field | changed).values()) + table + payload


# Threads.


class Concurrent(threading.Thread):
    """Runs a function in a thread; ``outcome()`` is what it returned, or raises what it raised."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._function, self._arguments = function, arguments
        self._returned, self._raised = None, None
        self.start()

    def run(self):
        try:
            self._returned = self._function(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self._raised = error

    def outcome(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread hangs"
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        return self._returned


@contextlib.contextmanager
def pipe():
    """The two ends of a pipe, as files without a buffer."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        yield reader, writer


@contextlib.contextmanager
def busy(capability):
    """The serving thread works until the end of the block: what is sent meanwhile waits in a queue."""
    with pipe() as (started, began), pipe() as (going, go):
        blocking = Concurrent(capability.cast(Work).block, began, going)
        assert started.read(1) == b"."
        yield
        go.close()
        assert blocking.outcome() == 1


def at_end(reader, seconds=PATIENCE):
    """Waits until nobody holds the writing end of a pipe any more; what was written before."""
    read, deadline = bytearray(), time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([reader], [], [], max(deadline - time.monotonic(), 0))
        assert ready, "somebody still holds the writing end"
        piece = os.read(reader.fileno(), 65536)
        if not piece:
            return bytes(read)
        read += piece


def temporary(data=b""):
    """A file in memory, at its beginning."""
    file = io.FileIO(os.memfd_create("test", os.MFD_CLOEXEC), "r+")
    file.write(data)
    file.seek(0)
    return file
