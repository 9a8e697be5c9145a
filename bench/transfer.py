"""Handing over bytes (64 B to 1 GiB) and descriptors (0 to 4,096), beside Python's own modules and C."""

import contextlib
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import capmarshal as cm
from bench import conditions, contenders, in_c, places, processes, servers, tables
from bench.charts import line_chart
from bench.contenders import look_at_bytes, look_at_descriptors
from bench.measuring import (
    Comparison,
    Goal,
    Report,
    Settings,
    Work,
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
_QUICK_SIZES, _QUICK_COUNTS = [64, _KIB, 256 * _KIB, _MIB], [0, 1, 300]

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


# Of an amount of a task: what is done again and again.
_Deeds = Callable[[int], Callable[[], object]]


def _dataspace(data: memoryview, size: int) -> cm.Dataspace:
    made = cm.Dataspace.create(size)
    for start in range(0, size, len(data)):
        made.write(data[: min(len(data), size - start)], start)
    made.seal()
    return made


def _in_python(
    works: Works, sizes: Sequence[int], count: int, stack: contextlib.ExitStack
) -> dict[str, dict[str, _Deeds]]:
    """By task, whoever hands over in Python; all of them hand over the same, which is made once."""
    stream = stack.enter_context(servers.by_hand(works, contenders.Stream))
    connection = stack.enter_context(servers.by_hand(works, contenders.ConnectionBytes))
    dup_fds = stack.enter_context(servers.by_hand(works, contenders.DupFds))
    works.share_password(bytes(multiprocessing.current_process().authkey))
    # A pattern whose period is no power of two: the last byte of each size is another one.
    pattern = bytes(range(251))
    data = memoryview(bytearray(pattern) * (min(max(sizes), INLINE_MAX) // len(pattern) + 1))
    dataspaces = {size: stack.enter_context(contextlib.closing(_dataspace(data, size))) for size in sizes}
    # A file each, as somebody would have who hands over so many.
    files = [stack.enter_context(cm.Descriptor(os.memfd_create("transfer", os.MFD_CLOEXEC))) for _ in range(count)]
    numbers = [file.fileno() for file in files]

    def by_value(take: Callable[[Any], object]) -> _Deeds:
        return lambda size: checked(take, (data[:size],), look_at_bytes(data[:size]))

    def by_dataspace(size: int) -> Callable[[], object]:
        with dataspaces[size].view() as view:
            return checked(works.take_dataspace, (dataspaces[size],), look_at_bytes(view))

    def by_number(take: Callable[[Any], object], lent: Sequence[object]) -> _Deeds:
        return lambda count: checked(take, (lent[:count],), look_at_descriptors(numbers[:count]))

    return {
        "bytes": {
            _INLINE: by_value(works.take_bytes),
            _DATASPACE: by_dataspace,
            _SEND_FDS: by_value(stream.hand_bytes),
            _CONNECTION: by_value(connection.hand_bytes),
        },
        "descriptors": {
            _CAPMARSHAL: by_number(works.take_descriptors, files),
            _SEND_FDS: by_number(stream.hand_descriptors, numbers),
            _DUP_FD: by_number(dup_fds.hand_descriptors, numbers),
        },
    }


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
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(in_c.compiled())
        works = stack.enter_context(processes.served()).cast(Works)
        python = _in_python(works, sizes, max(amounts["descriptors"]), stack)

        def timed(task: str, name: str, amount: int, cores: Cores) -> Callable[[], float]:
            # So often that it takes some milliseconds at least.
            enough = _BYTES if task == "bytes" else _DESCRIPTORS
            repeats = _REPEATS if name == _DATASPACE else max(1, min(_REPEATS, enough // max(amount, 1)))
            if name == _C:
                load = (amount, 0) if task == "bytes" else (0, amount)
                return partial(program.hand_over, *load, repeats, cores)
            # The peers close before they answer.
            settle = works.settle if name.startswith(_CAPMARSHAL) else nothing
            return partial(often, python[task][name](amount), repeats, settle)

        def at(cores: Cores) -> Iterator[Work]:
            servers.place(works, cores)
            for task, of_task in amounts.items():
                for amount in of_task:
                    able = [name for name, (most, _) in _MOST[task].items() if amount <= most]
                    goals = [Goal(name, _C) for name in able]
                    if task == "bytes" and amount in _TARGETS:
                        goals.append(Goal(_INLINE, _CONNECTION, _TARGETS[amount]))
                    own = {name: timed(task, name, amount, cores) for name in able}
                    yield Work(f"{task}, {_amount(task, amount)}", own, goals)
            largest, small = (f"{_DATASPACE}, {tables.size(size)}" for size in (max(sizes), _KIB))
            pair = {
                largest: timed("bytes", _DATASPACE, max(sizes), cores),
                small: timed("bytes", _DATASPACE, _KIB, cores),
            }
            yield Work("the largest Dataspace", pair, [Goal(largest, small)])

        report.comparisons = measure(at, settings.rounds_or(_ROUNDS))
    for task, of_task in amounts.items():
        report.pictures[f"transfer-{task}.svg"] = _draw(task, of_task, report.comparisons, places.ONE_CORE)
        report.notes += [f"{task}: {name}: {why}" for name, (most, why) in _MOST[task].items() if most < max(of_task)]
    if skipped := [count for count in counts if count > room]:
        report.notes.append(f"descriptors: {skipped}: the hard limit of open files (ulimit -Hn) is too low")
    return report
