"""Handing over bytes (64 B to 1 GiB) and descriptors (0 to 4,096), beside Python's own modules and C."""

from __future__ import annotations

import itertools
import statistics
from functools import partial
from typing import TYPE_CHECKING

from bench import chart, conditions, limits, places, tables
from bench.figures import Comparison, Report, interleave
from bench.sink import DESCRIPTORS_MAX
from bench.transferring import CAPMARSHAL, CONNECTION, DATASPACE, DUP_FD, INLINE, SEND_FDS, C, contenders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.places import Cores
    from bench.settings import Settings
    from bench.transferring import Contender, Measure

TAKES = "150 s"
_ROUNDS = 9
_KIB = 1 << 10

# 64 B to 1 GiB.  Every fourth power of two, so that 1 KiB is among them.
_SIZES = [1 << power for power in range(6, 31, 2)]
_COUNTS = [0, 1, 4, 16, 64, 253, 1024, DESCRIPTORS_MAX]
_QUICK_SIZES, _QUICK_COUNTS = [64, _KIB, 256 * _KIB], [0, 1, 300]

# In one measurement: at most so many hand-overs, and so many bytes or descriptors.
_REPEATS, _BYTES, _DESCRIPTORS = 100, 16 << 20, 4096

# The same in both charts; no chart has two of one colour.
_COLOURS = {INLINE: 0, CAPMARSHAL: 0, DATASPACE: 1, SEND_FDS: 2, CONNECTION: 3, DUP_FD: 3, C: 4}
_TITLES = {"bytes": "Handing over bytes", "descriptors": "Handing over descriptors"}


def _repeats(contender: str, task: str, amount: int) -> int:
    """How often one measurement hands over: so often that each takes some milliseconds at least."""
    if contender == DATASPACE:
        return _REPEATS
    enough = _BYTES if task == "bytes" else _DESCRIPTORS
    return max(1, min(_REPEATS, enough // max(amount, 1)))


def _amount(task: str, amount: int) -> str:
    return tables.size(amount) if task == "bytes" else f"{amount:,}"


def _measure(task: str, of: Sequence[Contender], amounts: Sequence[int], rounds: int, cores: Cores) -> list[Comparison]:
    """Every contender with every amount, once per round."""
    measured: dict[str, Callable[[], float]] = {}
    for amount, contender in itertools.product(amounts, of):
        if contender.measure is not None and amount <= contender.largest:
            repeats = _repeats(contender.name, task, amount)
            measured[f"{amount} {contender.name}"] = partial(contender.measure, amount, repeats, cores)
    figures = interleave(measured, rounds)
    made = []
    for amount in amounts:
        own = {
            contender.name: values
            for contender in of
            if (values := figures.get(f"{amount} {contender.name}")) is not None
        }
        compared = Comparison(f"{task}, {_amount(task, amount)}", cores.kind, cores, own)
        if C in own:
            for name in own:
                compared.compare(name, C)
        made.append(compared)
    return made


def _ratio(dataspace: Measure, largest: int, rounds: int, cores: Cores) -> Comparison:
    """What the largest dataspace costs against that of 1 KiB."""
    names = {f"{DATASPACE}, {tables.size(size)}": size for size in (largest, _KIB)}
    figures = interleave({name: partial(dataspace, size, _REPEATS, cores) for name, size in names.items()}, rounds)
    compared = Comparison("the largest Dataspace", cores.kind, cores, figures)
    large, small = figures
    compared.compare(large, small)
    return compared


def _draw(task: str, amounts: Sequence[int], comparisons: Sequence[Comparison], where: str) -> str:
    """The chart of one task at one place."""
    lines: dict[str, list[tuple[float, float]]] = {}
    of_place = [compared for compared in comparisons if compared.where == where]
    for amount, compared in zip(amounts, of_place, strict=True):
        for name, values in compared.figures.items():
            lines.setdefault(name, []).append((amount, statistics.median(values)))
    ticks = [amount for amount in amounts if amount.bit_length() % 4 == 3] if task == "bytes" else amounts
    place = "both processes on one core" if where == "one core" else "a core for each process"
    return chart.line_chart(
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
    room = limits.room_in_table(2 * max(counts)) // 2
    amounts = {"bytes": sizes, "descriptors": [count for count in counts if count <= room]}
    rounds = settings.rounds_or(_ROUNDS)
    where = places.places()
    report = Report()
    with contenders(sizes, amounts["descriptors"]) as by_task:
        for task, of in by_task.items():
            made = [_measure(task, of, amounts[task], rounds, cores) for cores in where]
            report.comparisons += itertools.chain.from_iterable(made)
            report.pictures[f"transfer-{task}.svg"] = _draw(task, amounts[task], made[0], where[0].kind)
            report.notes += [
                f"{task}: {contender.name}: {contender.why}"
                for contender in of
                if contender.largest < max(amounts[task])
            ]
        dataspace = next(contender.measure for contender in by_task["bytes"] if contender.name == DATASPACE)
        if dataspace is not None:
            report.comparisons += [_ratio(dataspace, max(sizes), rounds, cores) for cores in where]
    if skipped := [count for count in counts if count > room]:
        report.notes.append(f"descriptors: {skipped}: the hard limit of open files (ulimit -Hn) is too low")
    if len(where) == 1:
        report.notes.append("two cores: skipped, since this process may use only one")
    return report
