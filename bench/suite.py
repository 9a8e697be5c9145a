"""The figures as pyperf keeps them, so that its commands work on the file: compare_to, stats, hist.

pyperf measures each benchmark by itself; here they are measured in turns.  So only its data are used, not its runner.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyperf  # type: ignore[import-untyped]  # it has no types

from bench.conditions import conditions
from bench.measuring import Comparison, Report


def _benchmark(name: str, values: Sequence[float], unit: str, metadata: Mapping[str, str | int | float]) -> Any:
    """Each round is a run: it has a warm-up of its own, which is not kept."""
    said = {**metadata, "name": name, "unit": unit}
    runs = [
        pyperf.Run([value], metadata={**said, "round": number}, collect_metadata=False)
        for number, value in enumerate(values, 1)
    ]
    return pyperf.Benchmark(runs)


def _of(benchmark: str, compared: Comparison, common: Mapping[str, str | int]) -> Iterable[Any]:
    name = ": ".join(filter(None, (benchmark, compared.name)))
    metadata: dict[str, str | int | float] = dict(common)
    if compared.cores is not None:
        metadata |= {"client_core": compared.cores.client, "server_core": compared.cores.server}
    for contender, values in compared.figures.items():
        yield _benchmark(f"{name}: {contender}", values, compared.unit, metadata)
    for ratio in compared.ratios:
        said = metadata | ({} if ratio.target is None else {"target": ratio.target})
        # pyperf knows of no unit for a plain number but this one.
        yield _benchmark(f"{name}: {ratio.subject} / {ratio.base}", ratio.values, "integer", said)


def write(reports: Mapping[str, Report], file: Path) -> None:
    """Writes all figures and ratios; replaces the file."""
    common = conditions()
    made = [
        benchmark
        for name, report in reports.items()
        for compared in report.comparisons
        for benchmark in _of(name, compared, common | report.settings)
    ]
    if not made:
        raise SystemExit("nothing was measured, and nothing is written")
    pyperf.BenchmarkSuite(made).dump(str(file), replace=True)
