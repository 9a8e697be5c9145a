"""Arrays one after the other, 8 MiB each, from a process that fills them to one that copies them out."""

import contextlib
import multiprocessing
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING

import capmarshal as cm
from bench import CHECKOUT, places, processes
from bench.figures import in_words
from bench.measuring import Goal, Report, Work, often
from bench.places import Cores

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

TAKES, ROUNDS = "60 s", 5
# 1 GiB in all.
_SIZE, _COUNT = 8 << 20, 128
_QUICK_SIZE, _QUICK_COUNT = 64 << 10, 3
# Of those that are used again.
_BUFFERS = 3

_DATASPACE, _SHARED_BUFFER = "capmarshal, Dataspace", "capmarshal, SharedBuffer"
_NEW, _AGAIN, _QUEUE = "shared_memory, a new segment each", "shared_memory, used again", "multiprocessing.Queue"
_GOALS = [
    Goal(_DATASPACE, _NEW, 1.0),
    Goal(_SHARED_BUFFER, _AGAIN, 1.2),
    Goal(_DATASPACE, _QUEUE, 0.3),
    Goal(_SHARED_BUFFER, _QUEUE, 0.3),
]


class Source(cm.Interface):
    """Whoever fills arrays."""

    @cm.method
    def new(self) -> cm.Dataspace:
        """The next, in memory of its own."""

    @cm.method
    def lent(self) -> cm.SharedBuffer:
        """The next, in memory that is used again."""


class _Source(Source):
    """All that fill: what there is to copy is the same for each."""

    def __init__(self, size: int) -> None:
        self._data = bytearray(range(256)) * (size // 256)
        self._pool = cm.BufferPool(_BUFFERS, size)
        self._segments = [SharedMemory(create=True, size=size) for _ in range(_BUFFERS)]
        self._next = 0

    def next_data(self) -> bytearray:
        """What is to be copied: its first byte is another one each time."""
        self._next = (self._next + 1) % 256
        self._data[0] = self._next
        return self._data

    def new(self) -> cm.Dataspace:
        return cm.Dataspace.from_buffer(self.next_data())

    def lent(self) -> cm.SharedBuffer:
        buffer = self._pool.take(processes.PATIENCE)
        with buffer.view() as view:
            view[:] = self.next_data()
        return buffer

    def new_segment(self) -> str:
        """The name of one, which the receiver removes."""
        with contextlib.closing(SharedMemory(create=True, size=len(self._data))) as segment:
            _bytes_of(segment)[: len(self._data)] = self.next_data()
            return segment.name

    def old_segment(self) -> str:
        """The name of one of a few, that is free when so many others have been asked for."""
        segment = self._segments[self._next % _BUFFERS]
        _bytes_of(segment)[: len(self._data)] = self.next_data()
        return segment.name

    def close(self) -> None:
        """Removes what it has made."""
        self._pool.close()
        for segment in self._segments:
            segment.close()
            segment.unlink()


def _bytes_of(segment: SharedMemory) -> memoryview:
    assert segment.buf is not None  # noqa: S101 - it is until it is closed
    return segment.buf


def _produce(size: int, far: socket.socket, queued: "Queue[bytearray]") -> None:
    """The process that fills: serves its source, and answers by hand what is no call of it."""
    source = _Source(size)
    with contextlib.closing(source), cm.Entrypoint("source") as entrypoint:
        cm.send_capability(far, entrypoint.manage(source))
        connection: Connection[str, str]
        with Connection(far.detach()) as connection, contextlib.suppress(EOFError):
            while True:
                what = connection.recv()
                if what == _QUEUE:
                    queued.put(source.next_data())
                else:
                    connection.send(source.new_segment() if what == _NEW else source.old_segment())


class _Receiver:
    """The process that copies them out; each method gets the next array."""

    def __init__(
        self, size: int, source: Source, connection: "Connection[str, str]", queued: "Queue[bytearray]"
    ) -> None:
        self._room = bytearray(size)
        self._source = source
        self._connection = connection
        self._queued = queued
        self._attached: dict[str, SharedMemory] = {}
        self._last: cm.SharedBuffer | None = None

    def new(self) -> None:
        """A dataspace."""
        with self._source.new() as dataspace, dataspace.view() as view:
            self._copy(view)

    def lent(self) -> None:
        """A shared buffer.  The last one is kept until the next has come, as a loop's variable does."""
        with self._source.lent() as buffer, buffer.view() as view:
            self._copy(view)
        self._last = buffer

    def new_segment(self) -> None:
        """A segment that nobody had before."""
        self._connection.send(_NEW)
        with contextlib.closing(SharedMemory(self._connection.recv())) as segment:
            self._copy(_bytes_of(segment))
            segment.unlink()

    def old_segment(self) -> None:
        """One that is used again, attached once."""
        self._connection.send(_AGAIN)
        name = self._connection.recv()
        if name not in self._attached:
            self._attached[name] = SharedMemory(name)
        self._copy(_bytes_of(self._attached[name]))

    def queue(self) -> None:
        """Out of a queue."""
        self._connection.send(_QUEUE)
        self._copy(self._queued.get(timeout=processes.PATIENCE))

    def _copy(self, data: memoryview | bytearray) -> None:
        size, before = len(self._room), self._room[0]
        self._room[:] = data[:size]
        if self._room[0] == before or self._room[-1] != 255:
            raise SystemExit("a wrong array came")

    def close(self) -> None:
        """Lets go of what it holds."""
        for segment in self._attached.values():
            segment.close()
        self._connection.close()
        cm.capability(self._source).close()


@contextlib.contextmanager
def _receiving(cores: Cores, size: int) -> Iterator[_Receiver]:
    """A receiver on one core, and a process that fills on the other, as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    queued: Queue[bytearray] = context.Queue()
    near, far = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.callback(places.run_on)
        with far:
            places.run_on(cores.server)
            process = context.Process(target=_produce, args=(size, far, queued))
            # It is given this process's path, from which the checkout is missing: what is installed is measured.
            sys.path.append(str(CHECKOUT))
            process.start()
            sys.path.pop()
        stack.callback(process.join, processes.PATIENCE)
        places.run_on(cores.client)
        source = cm.receive_capability(near, timeout=processes.PATIENCE).cast(Source)
        receiver = _Receiver(size, source, Connection(near.detach()), queued)
        with contextlib.closing(receiver):
            yield receiver


def run(report: Report) -> Iterator[Work]:
    """At each place."""
    size = _QUICK_SIZE if report.quick else _SIZE
    count = report.loops(_COUNT, _QUICK_COUNT)
    for cores in places.places():
        with _receiving(cores, size) as receiver:
            deeds: dict[str, Callable[[], None]] = {
                _DATASPACE: receiver.new,
                _SHARED_BUFFER: receiver.lent,
                _NEW: receiver.new_segment,
                _AGAIN: receiver.old_segment,
                _QUEUE: receiver.queue,
            }
            timed = {name: partial(often, deed, count) for name, deed in deeds.items()}
            yield Work(cores.named(f"each of {in_words(size, 'byte')}"), cores, timed, _GOALS)
