"""What it costs to hand over much: bytes and descriptors of many sizes, and arrays one after the other."""

import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

import capmarshal as cm
from bench import CHECKOUT, c_program, contenders, processes
from bench.charts import line_chart
from bench.contenders import look_at_descriptors, pattern
from bench.figures import in_words
from bench.measuring import Goal, Report, Work, benchmark, checked, often
from bench.processes import PATIENCE, run_on
from bench.servers import DESCRIPTORS_MAX, INLINE_MAX, by_hand, served

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

_KIB, _MIB = 1 << 10, 1 << 20
# 64 B to 1 GiB.  Every fourth power of two, so that 1 KiB is among them.
_AMOUNTS = {
    "bytes": [1 << power for power in range(6, 31, 2)],
    "descriptors": [0, 1, 4, 16, 64, 253, 1024, DESCRIPTORS_MAX],
}
_QUICK_AMOUNTS = {"bytes": [64, _KIB, 256 * _KIB, _MIB], "descriptors": [0, 1, 300]}
# In one measurement: at most so many hand-overs, and so many bytes or descriptors.
_REPEATS, _ENOUGH = 100, {"bytes": 16 << 20, "descriptors": 4096}

_INLINE, _DATASPACE, _CAPMARSHAL = "capmarshal, inline", "capmarshal, Dataspace", "capmarshal"
_SEND_FDS, _CONNECTION, _DUP_FD = "socket.send_fds", "multiprocessing.Connection", "multiprocessing.reduction.DupFd"
_C = "C"
# DupFd fetches each one over a connection of its own: a thousand would take as long as all the rest.
_DUPS_MAX = 256
# Who hands over no more than this, and why.
_COPIES = INLINE_MAX, f"copying more than {in_words(INLINE_MAX, 'byte')} is not measured"
_MOST = {("bytes", name): _COPIES for name in (_INLINE, _SEND_FDS, _CONNECTION, _C)} | {
    ("bytes", _DUP_FD): (-1, "hands over no bytes"),
    ("descriptors", _CONNECTION): (-1, "hands over no descriptors but by DupFd"),
    ("descriptors", _DUP_FD): (_DUPS_MAX, f"too slow for more than {_DUPS_MAX}"),
}
# Of bytes by value against Connection.send_bytes.
_TARGETS = {_MIB: 1.0, 16 * _MIB: 1.0}


def _dataspace(data: memoryview, size: int) -> cm.Dataspace:
    made = cm.Dataspace.create(size)
    for start in range(0, size, len(data)):
        made.write(data[: min(len(data), size - start)], start)
    made.seal()
    return made


def _amount(task: str, amount: int) -> str:
    return in_words(amount, "byte") if task == "bytes" else f"{amount:,}"


@benchmark("150 s", rounds=9)
def transfer(at: Report) -> Iterator[Work]:
    """Handing over bytes (64 B to 1 GiB) and descriptors (0 to 4,096), beside Python's own modules and C."""
    amounts = at.either(_AMOUNTS, _QUICK_AMOUNTS)
    # Twice: what the receiver closes late is the second time.
    processes.make_room(2 * max(amounts["descriptors"]))
    at.can({f"{task}: {name}": why for (task, name), (most, why) in _MOST.items() if most < max(amounts[task])})
    works = at.enter(served(at.cores))
    stream = at.enter(by_hand(works, contenders.Stream)).hand_over
    connection = at.enter(by_hand(works, contenders.ConnectionBytes)).hand_over
    dup_fds = at.enter(by_hand(works, contenders.ConnectionObjects)).hand_descriptors
    # All of them hand over the same, which is made once: bytes; and a file each, as somebody would have.
    sizes = amounts["bytes"]
    data = memoryview(pattern(min(max(sizes), INLINE_MAX)))
    dataspaces = {size: at.enter(contextlib.closing(_dataspace(data, size))) for size in sizes}
    files = [at.enter(cm.Descriptor(os.memfd_create("transfer"))) for _ in range(max(amounts["descriptors"]))]
    numbers = [file.fileno() for file in files]
    # By task and name, whoever hands over in Python: how, and what of so many.
    ways: dict[tuple[str, str], tuple[Callable[..., object], Callable[[int], object]]] = {
        ("bytes", _INLINE): (works.take_bytes, lambda size: data[:size]),
        ("bytes", _DATASPACE): (works.take_dataspace, lambda size: dataspaces[size]),
        ("bytes", _SEND_FDS): (stream, lambda size: data[:size]),
        ("bytes", _CONNECTION): (connection, lambda size: data[:size]),
        ("descriptors", _CAPMARSHAL): (works.take_descriptors, lambda count: files[:count]),
        ("descriptors", _SEND_FDS): (partial(stream, b""), lambda count: numbers[:count]),
        ("descriptors", _DUP_FD): (dup_fds, lambda count: numbers[:count]),
    }

    def timed(task: str, name: str, amount: int) -> Callable[[], float]:
        # So often that it takes some milliseconds at least.
        repeats = _REPEATS if name == _DATASPACE else max(1, min(_REPEATS, _ENOUGH[task] // max(amount, 1)))
        if name == _C:
            load = (amount, 0) if task == "bytes" else (0, amount)
            return partial(c_program.hand_over, *load, repeats, at.cores)
        take, lend = ways[task, name]
        last = data[(amount - 1) % len(data)]
        arrived = (amount, last) if task == "bytes" else look_at_descriptors(numbers[:amount])
        # The peers close before they answer.
        settle = partial(works.use, "settle") if name.startswith(_CAPMARSHAL) else None
        return partial(often, checked(take, (lend(amount),), arrived), repeats, settle)

    for task, amount in ((task, amount) for task, of_task in amounts.items() for amount in of_task):
        everybody = [*(name for of, name in ways if of == task), _C]
        able = [name for name in everybody if amount <= _MOST.get((task, name), (amount, ""))[0]]
        goals = [Goal(name, _C) for name in able if name != _C]
        if task == "bytes" and amount in _TARGETS:
            goals.append(Goal(_INLINE, _CONNECTION, _TARGETS[amount]))
        yield at.work(f"{task}, {_amount(task, amount)}", {name: timed(task, name, amount) for name in able}, goals)
    pair = [(f"{_DATASPACE}, {_amount('bytes', size)}", size) for size in (max(sizes), _KIB)]
    largest = {name: timed("bytes", _DATASPACE, size) for name, size in pair}
    yield at.work("the largest Dataspace", largest, [Goal(pair[0][0], pair[1][0])])
    # The first ones are on one core.
    measured = iter(at.works)
    for task, of_task in amounts.items():
        at.pictures[f"transfer-{task}.svg"] = line_chart(
            f"Handing over {task}, on one core: time until the receiver has answered",
            {size: _amount(task, size) for size in of_task if task != "bytes" or size.bit_length() % 4 == 3},
            {amount: next(measured).figures for amount in of_task},
        )


# Of those that are used again.
_BUFFERS = 3
_SHARED_BUFFER = "capmarshal, SharedBuffer"
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
        buffer = self._pool.take(PATIENCE)
        with buffer.view() as view:
            view[:] = self.next_data()
        return buffer

    def new_segment(self) -> str:
        """The name of one, which the receiver removes."""
        with contextlib.closing(SharedMemory(create=True, size=len(self._data))) as segment:
            return self._fill(segment)

    def old_segment(self) -> str:
        """The name of one of a few, that is free when so many others have been asked for."""
        return self._fill(self._segments[self._next % _BUFFERS])

    def _fill(self, segment: SharedMemory) -> str:
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
        copy(queued.get(timeout=PATIENCE))

    return {_DATASPACE: dataspace, _SHARED_BUFFER: shared_buffer, _NEW: new_segment, _AGAIN: old_segment, _QUEUE: queue}


@benchmark("60 s", rounds=5)
def arrays(at: Report) -> Iterator[Work]:
    """Arrays one after the other, 8 MiB each, from a process that fills them to one that copies them out."""
    # 1 GiB in all.
    size, count = at.either(8 << 20, 64 << 10), at.loops(128, 3)
    context = multiprocessing.get_context("spawn")
    queued: Queue[bytearray] = context.Queue()
    near, far = socket.socketpair()
    with far:
        run_on(at.cores.server)
        process = context.Process(target=_produce, args=(size, far, queued))
        # It is given this process's path, from which the checkout is missing: what is installed is measured.
        sys.path.append(str(CHECKOUT))
        process.start()
        sys.path.pop()
    at.stack.callback(process.join, PATIENCE)
    run_on(at.cores.client)
    source = cm.receive_capability(near, timeout=PATIENCE).cast(Source)
    connection: Connection[Any, Any] = at.enter(Connection(near.detach()))
    deeds = _deeds(size, source, connection, queued)
    timed = {name: partial(often, deed, count) for name, deed in deeds.items()}
    yield at.work(f"each of {in_words(size, 'byte')}", timed, _GOALS)
