"""Arrays one after the other, 8 MiB each, from a process that fills them to one that copies them out."""

import contextlib
import multiprocessing
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

import capmarshal as cm
from bench import CHECKOUT, processes
from bench.figures import in_words
from bench.measuring import Goal, Report, Work, often
from bench.processes import Cores

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

    def __init__(self, size: int, stack: contextlib.ExitStack) -> None:
        self._data = bytearray(range(256)) * (size // 256)
        self._pool = stack.enter_context(contextlib.closing(cm.BufferPool(_BUFFERS, size)))
        self._segments = [SharedMemory(create=True, size=size) for _ in range(_BUFFERS)]
        for segment in self._segments:
            stack.callback(segment.unlink)
            stack.callback(segment.close)
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


def _bytes_of(segment: SharedMemory) -> memoryview:
    assert segment.buf is not None  # noqa: S101 - it is until it is closed
    return segment.buf


def _produce(size: int, far: socket.socket, queued: "Queue[bytearray]") -> None:
    """The process that fills: serves its source, and answers by hand what is no call of it."""
    with contextlib.ExitStack() as stack, cm.Entrypoint("source") as entrypoint:
        source = _Source(size, stack)
        cm.send_capability(far, entrypoint.manage(source))
        connection: Connection[str, str] = stack.enter_context(Connection(far.detach()))
        with contextlib.suppress(EOFError):
            while True:
                what = connection.recv()
                if what == _QUEUE:
                    queued.put(source.next_data())
                else:
                    connection.send(source.new_segment() if what == _NEW else source.old_segment())


def _deeds(
    size: int, source: Source, connection: "Connection[str, str]", queued: "Queue[bytearray]"
) -> dict[str, Callable[[], None]]:
    """By name: each gets the next array, and copies it out."""
    room = bytearray(size)
    attached: dict[str, SharedMemory] = {}
    last: list[cm.SharedBuffer] = []

    def copy(data: memoryview | bytearray) -> None:
        before = room[0]
        room[:] = data[:size]
        if room[0] == before or room[-1] != 255:
            raise SystemExit("a wrong array came")

    def dataspace() -> None:
        with source.new() as came, came.view() as view:
            copy(view)

    def shared_buffer() -> None:
        with source.lent() as buffer, buffer.view() as view:
            copy(view)
        # The last one is kept until the next has come, as a loop's variable is.
        last[:] = [buffer]

    def new_segment() -> None:
        connection.send(_NEW)
        with contextlib.closing(SharedMemory(connection.recv())) as segment:
            copy(_bytes_of(segment))
            segment.unlink()

    def old_segment() -> None:
        connection.send(_AGAIN)
        name = connection.recv()
        if name not in attached:
            attached[name] = SharedMemory(name)
        copy(_bytes_of(attached[name]))

    def queue() -> None:
        connection.send(_QUEUE)
        copy(queued.get(timeout=processes.PATIENCE))

    return {_DATASPACE: dataspace, _SHARED_BUFFER: shared_buffer, _NEW: new_segment, _AGAIN: old_segment, _QUEUE: queue}


@contextlib.contextmanager
def _receiving(cores: Cores, size: int) -> Iterator[dict[str, Callable[[], None]]]:
    """What a receiver on one core does, as long as a process that fills runs on the other."""
    context = multiprocessing.get_context("spawn")
    queued: Queue[bytearray] = context.Queue()
    near, far = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.callback(processes.run_on)
        with far:
            processes.run_on(cores.server)
            process = context.Process(target=_produce, args=(size, far, queued))
            # It is given this process's path, from which the checkout is missing: what is installed is measured.
            sys.path.append(str(CHECKOUT))
            process.start()
            sys.path.pop()
        stack.callback(process.join, processes.PATIENCE)
        processes.run_on(cores.client)
        source = cm.receive_capability(near, timeout=processes.PATIENCE).cast(Source)
        connection: Connection[Any, Any] = stack.enter_context(Connection(near.detach()))
        yield _deeds(size, source, connection, queued)


def run(report: Report) -> Iterator[Work]:
    size = _QUICK_SIZE if report.quick else _SIZE
    count = report.loops(_COUNT, _QUICK_COUNT)
    for cores in processes.places():
        with _receiving(cores, size) as deeds:
            timed = {name: partial(often, deed, count) for name, deed in deeds.items()}
            yield Work(cores.named(f"each of {in_words(size, 'byte')}"), cores, timed, _GOALS)
