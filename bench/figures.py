"""The figures as people read them, and as pyperf keeps them, so that its commands work on the file.

pyperf measures each benchmark by itself; here they are measured in turns.  So only its data are used, not its runner.
"""

import functools
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import pyperf  # type: ignore[import-untyped]  # it has no types

from bench.measuring import Report, Row, Unit, Work, quartiles
from bench.processes import places

_UNITS: dict[str, dict[str, float]] = {
    "second": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
    "byte": {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1},
}
# What is measured, and what it stands on; and of what pyperf finds out about a machine, what figures depend on.
_PACKAGES = ("capmarshal", "cffi", "msgspec")
_MACHINE = ("platform", "python_implementation", "python_version", "cpu_model_name", "cpu_count")


@functools.cache
def conditions() -> dict[str, str | int]:
    """The machine and the versions, by pyperf's names where it has one."""
    packages: dict[str, str | int] = {f"{package}_version": metadata.version(package) for package in _PACKAGES}
    found = pyperf.Run([1.0]).get_metadata()
    machine = {name: found[name] for name in _MACHINE if name in found}
    return packages | machine | {"cpu_affinity": ",".join(str(cores.server) for cores in places())}


def briefly() -> str:
    """The least to be said: on what."""
    return ", ".join(str(conditions()[name]) for name in _MACHINE[:-1] if name in conditions())


def conditions_in_words() -> str:
    """All of it, in one line."""
    packages = [f"{package} {conditions()[f'{package}_version']}" for package in _PACKAGES]
    return ", ".join([*packages, briefly(), f"{conditions()['cpu_count']} cores"])


def in_words(value: float, unit: Unit = "second") -> str:
    """With three digits, in the largest unit of which there is one at least."""
    units = _UNITS[unit]
    # What three digits round to 1,000 is one of the next.
    name = next((name for name, size in units.items() if value >= 0.9995 * size), list(units)[-1])
    return f"{float(f'{value / units[name]:.3g}'):g} {name}"


def _cells(row: Row) -> tuple[str, str, str]:
    lower, middle, upper = (in_words(v, row.unit) if row.unit else f"{v:.3g}" for v in quartiles(row.values))
    reached = row.target is not None and median(row.values) <= row.target
    verdict = "" if row.target is None else f"target {row.target:g}: {'reached' if reached else 'MISSED'}"
    return row.name, f"{middle:>8}  ({lower} - {upper})", verdict


def _lines(work: Work) -> Iterator[str]:
    """One table."""
    rows = [*map(_cells, work.rows())]
    measured = len(work.figures)
    rows[measured:measured] = [(name, why, "") for name, why in work.cannot.items()]
    width = max(len(name) for name, _, _ in rows)
    yield ""
    yield work.name if work.cores is None else work.name.replace(work.cores.kind, str(work.cores))
    for name, figures, verdict in rows:
        yield f"  {name:{width}}  {figures:32}  {verdict}".rstrip()


def show(name: str, report: Report) -> None:
    settings = ", ".join(f"{what} {value}" for what, value in report.settings.items())
    print(f"\n== {name}" + (f": {settings}" if settings else ""))
    for work in report.works:
        print("\n".join(_lines(work)))
    if report.missing:
        print("\nnot measured", *(f"{what}: {why}" for what, why in report.missing.items()), sep="\n  ")


def _kept(benchmark: str, report: Report) -> Iterator[Any]:
    """Each round is a run: it has a warm-up of its own, which is not kept."""
    for work in report.works:
        where = {} if work.cores is None else {"client_core": work.cores.client, "server_core": work.cores.server}
        for row in work.rows():
            # pyperf knows of no unit for a plain number but this one.
            said = {"name": f"{benchmark}: {work.name}: {row.name}", "unit": row.unit or "integer"}
            wanted = {} if row.target is None else {"target": row.target}
            data = {**conditions(), **report.settings, **where, **said, **wanted}
            yield pyperf.Benchmark(
                [
                    pyperf.Run([value], metadata={**data, "round": number}, collect_metadata=False)
                    for number, value in enumerate(row.values, 1)
                ]
            )


def keep(name: str, report: Report, file: Path) -> None:
    """Adds a benchmark's figures and ratios to the file, or makes it: what is there already is of earlier rounds."""
    if made := list(_kept(name, report)):
        pyperf.add_runs(str(file), pyperf.BenchmarkSuite(made))
