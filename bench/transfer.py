"""Handing over bytes (64 B to 1 GiB) and descriptors (0 to 4,096), beside Python's own modules and C."""

import contextlib
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import capmarshal as cm
from bench import conditions, contenders, in_c, places, processes, servers, tables
from bench.charts import line_chart
from bench.contenders import look_at_bytes, look_at_descriptors
from bench.in_c import InC
from bench.measuring import (
    ANYTHING,
    Comparison,
    Goal,
    Report,
    Settings,
    Work,
    against,
    checked,
    everywhere,
    measure,
    nothing,
    often,
)
from bench.places import Cores
from bench.servers import DESCRIPTORS_MAX, INLINE_MAX, Works

TAKES = "150 s"
_ROUNDS = 9
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30

# 64 B to 1 GiB.  Every fourth power of two, so that 1 KiB is among them.
_SIZES = [1 << power for power in range(6, 31, 2)]
_COUNTS = [0, 1, 4, 16, 64, 253, 1024, DESCRIPTORS_MAX]
_QUICK_SIZES, _QUICK_COUNTS = [64, _KIB, 256 * _KIB], [0, 1, 300]

# In one measurement: at most so many hand-overs, and so many bytes or descriptors.
_REPEATS, _BYTES, _DESCRIPTORS = 100, 16 << 20, 4096

_INLINE, _DATASPACE, _CAPMARSHAL = "capmarshal, inline", "capmarshal, Dataspace", "capmarshal"
_SEND_FDS, _CONNECTION, _DUP_FD = "socket.send_fds", "multiprocessing.Connection", "multiprocessing.reduction.DupFd"
_C = "C"
# DupFd fetches each one over a connection of its own: a thousand would take as long as all the rest.
_DUPS_MAX = 256
# Who hands over how much at most: bytes, descriptors; and why no more.
_COPIES = INLINE_MAX, f"copying more than {tables.size(INLINE_MAX)} is not measured"
_MOST = {
    "bytes": {
        _INLINE: _COPIES,
        _DATASPACE: (_GIB, ""),
        _SEND_FDS: _COPIES,
        _CONNECTION: _COPIES,
        _DUP_FD: (-1, "hands over no bytes"),
        _C: _COPIES,
    },
    "descriptors": {
        _CAPMARSHAL: (DESCRIPTORS_MAX, ""),
        _SEND_FDS: (DESCRIPTORS_MAX, ""),
        _CONNECTION: (-1, "hands over no descriptors but by DupFd"),
        _DUP_FD: (_DUPS_MAX, f"too slow for more than {_DUPS_MAX}"),
        _C: (DESCRIPTORS_MAX, ""),
    },
}
# Of bytes by value against Connection.send_bytes.
_TARGETS = {_MIB: everywhere(1.0), 16 * _MIB: everywhere(1.0)}

# The same in both charts; no chart has two of one colour.
_COLOURS = {_INLINE: 0, _CAPMARSHAL: 0, _DATASPACE: 1, _SEND_FDS: 2, _CONNECTION: 3, _DUP_FD: 3, _C: 4}
_TITLES = {"bytes": "Handing over bytes", "descriptors": "Handing over descriptors"}


class _Goods:
    """What is handed over: made once, and lent to every contender."""

    def __init__(self, sizes: Sequence[int], count: int) -> None:
        # A pattern whose period is no power of two: the last byte of each size is another one.
        pattern = bytes(range(251))
        self.data = memoryview(bytearray(pattern) * (min(max(sizes), INLINE_MAX) // len(pattern) + 1))
        self.dataspaces = {size: self._dataspace(size) for size in sizes}
        # A file each, as somebody would have who hands over so many.
        self.descriptors = [cm.Descriptor(os.memfd_create("transfer", os.MFD_CLOEXEC)) for _ in range(count)]
        self.numbers = [descriptor.fileno() for descriptor in self.descriptors]

    def _dataspace(self, size: int) -> cm.Dataspace:
        made = cm.Dataspace.create(size)
        step = len(self.data)
        for start in range(0, size, step):
            made.write(self.data[: min(step, size - start)], start)
        made.seal()
        return made

    def close(self) -> None:
        """Closes all of it."""
        for dataspace in self.dataspaces.values():
            dataspace.close()
        for descriptor in self.descriptors:
            descriptor.close()


class _Contenders(NamedTuple):
    """Whoever hands over."""

    works: Works
    stream: contenders.Stream
    connection: contenders.ConnectionBytes
    dup_fds: contenders.DupFds
    program: InC
    goods: _Goods

    def of(self, task: str, amount: int, cores: Cores) -> dict[str, Callable[[], float]]:
        """Those that hand over so much."""
        calls = self._bytes(amount) if task == "bytes" else self._descriptors(amount)
        timed: dict[str, Callable[[], float]] = {}
        for name, (most, _) in _MOST[task].items():
            if amount > most:
                continue
            # So often that it takes some milliseconds at least.
            enough = _BYTES if task == "bytes" else _DESCRIPTORS
            repeats = _REPEATS if name == _DATASPACE else max(1, min(_REPEATS, enough // max(amount, 1)))
            if name == _C:
                load = (amount, 0) if task == "bytes" else (0, amount)
                timed[name] = partial(self.program.hand_over, *load, repeats, cores)
            else:
                # The peers close before they answer.
                settle = self.works.settle if name.startswith(_CAPMARSHAL) else nothing
                timed[name] = partial(often, calls[name], repeats, settle)
        return timed

    def _bytes(self, size: int) -> dict[str, Callable[[], object]]:
        data = self.goods.data[:size]
        seen = look_at_bytes(data)
        return {
            _INLINE: checked(self.works.take_bytes, (data,), seen),
            _DATASPACE: self.dataspace(size),
            _SEND_FDS: checked(self.stream.hand_bytes, (data,), seen),
            _CONNECTION: checked(self.connection.hand_bytes, (data,), seen),
        }

    def _descriptors(self, count: int) -> dict[str, Callable[[], object]]:
        numbers = self.goods.numbers[:count]
        seen = look_at_descriptors(numbers)
        return {
            _CAPMARSHAL: checked(self.works.take_descriptors, (self.goods.descriptors[:count],), seen),
            _SEND_FDS: checked(self.stream.hand_descriptors, (numbers,), seen),
            _DUP_FD: checked(self.dup_fds.hand_descriptors, (numbers,), seen),
        }

    def dataspace(self, size: int) -> Callable[[], object]:
        """Of that size; the other side reads the last byte."""
        data = self.goods.dataspaces[size]
        with data.view() as view:
            return checked(self.works.take_dataspace, (data,), look_at_bytes(view))


@contextlib.contextmanager
def _contenders(sizes: Sequence[int], count: int) -> Iterator[_Contenders]:
    with contextlib.ExitStack() as stack:
        works = stack.enter_context(processes.served()).cast(Works)
        works.share_password(bytes(multiprocessing.current_process().authkey))
        yield _Contenders(
            works,
            stack.enter_context(servers.by_hand(works, contenders.Stream)),
            stack.enter_context(servers.by_hand(works, contenders.ConnectionBytes)),
            stack.enter_context(servers.by_hand(works, contenders.DupFds)),
            stack.enter_context(in_c.compiled()),
            stack.enter_context(contextlib.closing(_Goods(sizes, count))),
        )


def _amount(task: str, amount: int) -> str:
    return tables.size(amount) if task == "bytes" else f"{amount:,}"


def _draw(task: str, amounts: Sequence[int], comparisons: Sequence[Comparison], where: str) -> str:
    """The chart of one task at one place."""
    lines: dict[str, list[tuple[float, float]]] = {}
    of_place = [each for each in comparisons if each.where == where and each.work.startswith(task)]
    for amount, compared in zip(amounts, of_place, strict=True):
        for name, values in compared.figures.items():
            lines.setdefault(name, []).append((amount, statistics.median(values)))
    ticks = [amount for amount in amounts if amount.bit_length() % 4 == 3] if task == "bytes" else amounts
    place = "both processes on one core" if where == places.ONE_CORE else "a core for each process"
    return line_chart(
        f"{_TITLES[task]}: time until the receiver has answered",
        f"{conditions.briefly()}, {place}; medians",
        {amount: _amount(task, amount) for amount in ticks},
        tables.time,
        lines,
        _COLOURS,
    )


def run(settings: Settings) -> Report:
    """Measures both tasks at each place."""
    sizes, counts = (_QUICK_SIZES, _QUICK_COUNTS) if settings.quick else (_SIZES, _COUNTS)
    # Twice: what the receiver closes late is the second time.
    room = places.room_in_table(2 * max(counts)) // 2
    amounts = {"bytes": sizes, "descriptors": [count for count in counts if count <= room]}
    report = Report()
    with _contenders(sizes, max(amounts["descriptors"])) as them:

        def at(cores: Cores) -> Iterator[Work]:
            servers.place(them.works, cores)
            for task, of_task in amounts.items():
                for amount in of_task:
                    timed = them.of(task, amount, cores)
                    goals = [Goal(name, _C, ANYTHING) for name in timed]
                    if task == "bytes" and amount in _TARGETS:
                        goals.append(Goal(_INLINE, _CONNECTION, _TARGETS[amount]))
                    yield Work(f"{task}, {_amount(task, amount)}", timed, goals)
            timed = {
                f"{_DATASPACE}, {tables.size(size)}": partial(often, them.dataspace(size), _REPEATS, them.works.settle)
                for size in (max(sizes), _KIB)
            }
            large, small = timed
            yield Work("the largest Dataspace", timed, against(large, [small], {}))

        report.comparisons = measure(at, settings.rounds_or(_ROUNDS))
    for task, of_task in amounts.items():
        report.pictures[f"transfer-{task}.svg"] = _draw(task, of_task, report.comparisons, places.ONE_CORE)
        report.notes += [f"{task}: {name}: {why}" for name, (most, why) in _MOST[task].items() if most < max(of_task)]
    if skipped := [count for count in counts if count > room]:
        report.notes.append(f"descriptors: {skipped}: the hard limit of open files (ulimit -Hn) is too low")
    return report
