"""Long calls, spoken by hand; and a server in a process of its own that tells about itself."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import resource
import select
import struct
import time
from pathlib import Path

import msgspec

import awaiting
import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper as _reaper
from capmarshal._protocol import parts as _parts
from capmarshal._protocol import wire as _wire
from patience import PATIENCE

NO_BADGE = _wire.NO_BADGE


class Bulk(cm.Interface):
    """Takes and gives a lot."""

    @cm.method
    def size(self, data: bytes) -> int: ...

    @cm.method
    def check(self, data: bytes, files: list[cm.Descriptor]) -> tuple[str, list[int]]: ...

    @cm.method
    def make(self, size: int, count: int) -> tuple[bytes, list[cm.Descriptor]]: ...

    @cm.method
    def same(self, count: int, go: cm.Descriptor | None) -> list[cm.Descriptor]: ...

    @cm.method
    def make_kept(self, count: int) -> list[cm.Descriptor]: ...

    @cm.method
    def close_kept(self) -> int: ...

    @cm.method
    def block(self, data: bytes, started: cm.Descriptor, go: cm.Descriptor) -> int: ...

    @cm.method
    def back(self, other: Bulk, size: int) -> int: ...

    @cm.method
    def fork_until(self, go: cm.Descriptor) -> int: ...

    @cm.method
    def run(self) -> int: ...

    @cm.method
    def state(self) -> State: ...

    @cm.method
    def soft_limit(self, spare: int) -> int: ...


class State(msgspec.Struct):
    """What a server tells about its process.

    Attributes:
        runs: of its methods, but for size, and those that only ask.
        open: descriptors.
        rss: resident memory, in bytes,
        peak: and the most that it ever was.
        cpu: seconds used.
        log: lines.
    """

    runs: int
    open: int
    rss: int
    peak: int
    cpu: float
    log: list[str]


def _status(field):
    """A field of /proc/self/status that is in kB, in bytes; 0 where the process may not look."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def count_open():
    """How many descriptors are open: found out without one, for a full table."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    poll = select.poll()
    for number in range(min(soft, 20_000)):
        poll.register(number, 0)
    return len(range(min(soft, 20_000))) - sum(bool(events & select.POLLNVAL) for _, events in poll.poll(0))


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


class BulkServer(Bulk):
    """The server of it."""

    def __init__(self):
        self.runs = 0
        self.kept = []
        self.padding = []
        self.log = _Lines()
        logging.getLogger("capmarshal").addHandler(self.log)

    def size(self, data):
        return len(data)

    def check(self, data, files):
        self.runs += 1
        return hashlib.sha256(data).hexdigest(), [os.fstat(file.fileno()).st_ino for file in files]

    def make(self, size, count):
        self.runs += 1
        return pattern(size), [cm.Descriptor(os.memfd_create(f"made-{i}")) for i in range(count)]

    def same(self, count, go):
        """One pipe's end so often, once ``go`` is at its end: many descriptors that cost this process one."""
        if go is not None:
            select.select([go.fileno()], [], [], PATIENCE)
        reader, writer = os.pipe()
        os.close(writer)
        return [cm.Descriptor(reader)] * count

    def make_kept(self, count):
        self.kept = [cm.keep(cm.Descriptor(os.memfd_create(f"kept-{i}"))) for i in range(count)]
        for place, file in enumerate(self.kept):
            os.pwrite(file.fileno(), str(place).encode(), 0)
        return self.kept

    def close_kept(self):
        for file in self.kept:
            file.close()
        return len(self.kept)

    def block(self, data, started, go):
        self.runs += 1
        os.write(started.fileno(), b".")
        ready, _, _ = select.select([go.fileno()], [], [], PATIENCE)
        return len(ready)

    def back(self, other, size):
        return other.size(pattern(size))

    def fork_until(self, go):
        pid = os.fork()
        if pid == 0:
            select.select([go.fileno()], [], [], PATIENCE)
            os._exit(0)
        return pid

    def run(self):
        self.runs += 1
        return self.runs

    def state(self):
        _reaper.wait(PATIENCE)
        rss, peak = _status("VmRSS"), _status("VmHWM")
        return State(self.runs, count_open(), rss, peak, time.process_time(), self.log.lines)

    def soft_limit(self, spare):
        """Lets the table of this process have room for so many more; the old limit.  -1: as many as may be."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if spare < 0:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            close_all(self.padding)
            self.padding = []
        else:
            # A table of some size, for what one process may have of it is a share.
            self.padding += [os.open(os.devnull, os.O_RDONLY) for _ in range(200 - len(self.padding))]
            resource.setrlimit(resource.RLIMIT_NOFILE, (_limit_for(spare), hard))
        return soft


def _limit_for(spare):
    """A soft limit that leaves so many free numbers below it, wherever the open ones are."""
    free = (number for number in itertools.count() if not _is_open(number))
    return next(itertools.islice(free, spare, None))


def _is_open(number):
    poll = select.poll()
    poll.register(number, 0)
    return not any(events & select.POLLNVAL for _, events in poll.poll(0))


@contextlib.contextmanager
def little_room(spare):
    """In this process, only so many more descriptors can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with awaiting.loop_kept():
        resource.setrlimit(resource.RLIMIT_NOFILE, (_limit_for(spare), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def pattern(size):
    """So many bytes in which a shift or a repetition shows."""
    return (b"".join(struct.pack("=I", i) for i in range(min(size // 4 + 1, 1 << 18))) * (size // (1 << 20) + 1))[:size]


@contextlib.contextmanager
def bulk_process(fork, entrypoint=None, **options):
    """A forked process that serves Bulk until the block ends: (process, proxy).

    Args:
        fork: the fixture.
        entrypoint: arguments of the entrypoint.
        options: of the fork.
    """
    registrar = by_hand.Registrar()
    ended, hold = os.pipe()
    with cm.Entrypoint("registrar") as home:
        register = home.manage(registrar).cast(by_hand.Register)

        def serve():
            os.close(hold)
            with cm.Entrypoint("bulk", **(entrypoint or {})) as served:
                with awaiting.call_plainly():
                    register.enter(served.manage(BulkServer()))
                select.select([ended], [], [], 4 * PATIENCE)

        child = fork(serve, **options)
        capability = None
        try:
            assert registrar.arrived.wait(PATIENCE), child.result()
            capability, registrar.what = registrar.what, None
            yield child, capability.cast(Bulk)
        finally:
            if capability is not None:
                # A failed test's traceback, and pytest, hold proxies longer than the descriptors are counted.
                capability.close()
            os.close(hold)
            os.close(ended)
            if child.pid is not None:
                child.result()


@contextlib.contextmanager
def busy(proxy):
    """The serving thread works until the end of the block: what is sent meanwhile waits in a queue."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, stop):
        blocking = by_hand.Concurrent(proxy.block, b"", began, going)
        assert started.read(1) == b"."
        try:
            yield
        finally:
            stop.close()
            blocking.outcome()


# The client's side.


def begin(size, descriptors, call_id=1):
    """A BEGIN record."""
    return _wire.pack_begin(call_id, size, descriptors)


def part(data=b"", descriptors=0, call_id=1):
    """A PART record."""
    return _wire.pack_part_head(call_id, descriptors) + data


def go(call_id=1):
    """A GO record."""
    return _wire.pack_go(call_id)


def call(capability, method, arguments, files=0, **changed):
    """A CALL record with the descriptors 0 to ``files`` in its table."""
    entries = [(slot, NO_BADGE) for slot in range(files)]
    payload = msgspec.msgpack.encode(arguments)
    return by_hand.call(capability, method, payload, entries, files, **changed)


def pieces(record, numbers=(), call_id=1, size=_parts.PART_BYTES):
    """The records, each with its descriptors, that a long record is cut into; and whether the next awaits a GO."""
    at = 0
    for piece in _parts.cut(call_id, len(record), list(numbers), size):
        # What is data alone is one piece, in several records.
        for start in range(at, piece.stop, size) or (at,):
            yield piece.head + record[start : min(start + size, piece.stop)], piece.numbers, piece.waits
        at = piece.stop


def await_go(near):
    """Waits for a GO."""
    record, descriptors = by_hand.answer(near)
    assert isinstance(record, _wire.Go), record
    assert not descriptors


def send_long(near, record, numbers=(), call_id=1):
    """Sends a record in parts, as an honest sender does."""
    for data, some, waits in pieces(record, numbers, call_id):
        by_hand.send(near, data, some)
        if waits:
            await_go(near)


def long_answer(near, *, say_go=True):
    """A long answer's record, unpacked, and its descriptors; without ``say_go`` only up to where a GO is due."""
    head, _ = by_hand.answer(near)
    assert isinstance(head, _wire.Begin), head
    data, numbers = bytearray(), []
    while len(data) < head.size or len(numbers) < head.descriptors:
        record, some = by_hand.answer(near)
        assert isinstance(record, _wire.Part), record
        data += record.payload
        numbers += some
        if some and (len(data) < head.size or len(numbers) < head.descriptors):
            if not say_go:
                return None, numbers
            near.send(go(head.id))
    return _wire.unpack(bytes(data)), numbers


def rest_of_long_answer(near, data=b"", numbers=()):
    """What the kernel has of it at the moment, thrown away: bytes and descriptors."""
    near.setblocking(False)
    size = count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            record, some = by_hand.answer(near)
            if record is None:
                break
            size += 1
            count += len(some)
            close_all(some)
    near.settimeout(PATIENCE)
    return size, count


def close_all(numbers):
    """Closes them."""
    for number in numbers:
        os.close(number)


def lives(near, capability, call_id=77):
    """Whether the channel still carries calls."""
    near.send(call(capability, b"size", [b"123"], id=call_id))
    while True:
        record, descriptors = by_hand.answer(near)
        close_all(descriptors)
        if isinstance(record, _wire.Reply) and record.id == call_id:
            return bytes(record.payload) == b"\x03"
        assert record is not None, "the channel has ended"
