"""What an honest client pays for its neighbour: the same calls alone, and beside loads of one other client.

``python -m bench.neighbours`` measures each load with one version of capmarshal or several: a page of Markdown.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import capmarshal as cm
from bench import CHECKOUT
from bench.loads import LOADS, neighbour
from bench.processes import Cores, line_of, places, running
from bench.servers import Works, served, shared

_SECONDS, _QUICK_SECONDS, _PATIENCE = 3.0, 0.05, 150.0
# Seconds for one call of the honest client.
_CALL = 10.0
# Of these is the 99th percentile something: it goes on up to four times as long to have as many.
_ENOUGH = 1000
# So many times the 99th percentile alone, and one call of the neighbour's, are to be the most.
_TIMES = 10
_HEAD = "| load | p50 | p99 | worst | p99 in real time | one call of its | bound | kept | errors | it did | refused |"
_PAGE = f"""\
# What a neighbour costs

An honest client calls `add(int, int)` again and again, alone, and while one other client puts a load on the same
server. Server and honest client run on one core, the other client on the other.

- *p99 in real time*: the same client goes on with real-time priority, so that it never waits for its core. A server
  that a flood keeps busy uses its core to the end of the scheduler's slice (some 3 ms), whoever else could run there:
  that is in *p99*, and is the machine's; what is left is the server's.
- *bound*: {_TIMES} times the 99th percentile alone, and the time of one call of the other's, which is what that takes
  while nobody else calls.
- *kept*: whether p99 is within it; else whether that in real time is.
- *errors*: of the honest client.
- *it did*, *refused*: how often the other client got through with what it does, and how often it did not, or lost a
  channel.

Made by `python -m bench.neighbours` (see bench/README.md) on {{conditions}}, {{seconds:g}} s for each.
"""


class Row(NamedTuple):
    """One load, with one version; in seconds, but for ``alone``."""

    alone: list[int]  # all times of the honest client before the load, in ns
    beside: list[float]  # the median of its times, the 99th percentile and the worst
    at_once: float | None  # the 99th percentile in real time, if that could be had
    errors: dict[str, int]  # of the honest client
    once: float  # one call of the neighbour's
    done: int  # how often that one did it
    refused: int


def _call(shared: Works, seconds: float) -> tuple[list[int], Counter[str]]:
    """Calls again and again: how long each took, in ns, sorted; and errors, which count as calls."""
    times: list[int] = []
    errors = Counter[str]()
    clock = time.perf_counter_ns
    begin = now = clock()
    length = seconds * 1e9
    while now - begin < length or (len(times) < _ENOUGH and now - begin < 4 * length):
        try:
            with cm.timeout(_CALL):
                before = clock()
                if shared.add(1, 2) != 3:
                    raise SystemExit("a wrong result came")
        except cm.Error as error:
            errors[type(error).__name__] += 1
        now = clock()
        times.append(now - before)
    return sorted(times), errors


def _percentiles(times: list[int], *parts: float) -> list[float]:
    """Of sorted ns, in seconds."""
    return [times[min(int(len(times) * part), len(times) - 1)] / 1e9 for part in parts]


def _in_real_time(shared: Works, seconds: float) -> float | None:
    """The 99th percentile of this process with real-time priority, where it may have that."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except PermissionError:
        return None
    return _percentiles(_call(shared, seconds)[0], 0.99)[0]


def beside(load: str, length: str) -> None:
    """With this interpreter's capmarshal, for so many seconds: prints a row as JSON.

    Server and honest client share a core; the neighbour's is another one.
    """
    seconds = float(length)
    here, *_, other = places() * 2
    with served(here, shared) as works:
        gc.freeze()
        gc.disable()
        _call(works, seconds / 10)
        alone, _ = _call(works, seconds / 2)
        apart = Cores(here.client, other.server)
        with running(neighbour, load, cores=apart, parent=cm.capability(works)) as process:
            # It has begun.
            line_of(process)
            times, errors = _call(works, seconds)
            at_once = _in_real_time(works, seconds)
            said = json.loads(line_of(process, "over"))
    print(json.dumps(Row(alone, _percentiles(times, 0.5, 0.99, 1), at_once, errors, *said)))


def _measure(python: str, load: str, seconds: float) -> Row | None:
    """With an interpreter's capmarshal."""
    command = [python, "-m", "bench.processes", "bench.neighbours", "beside", load, str(seconds)]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, timeout=_PATIENCE, check=True)
    except subprocess.SubprocessError as error:
        print(f"{load}: {error}", file=sys.stderr)
        return None
    return Row(*json.loads(done.stdout))


def _kept(row: Row, bound: float) -> str:
    if row.beside[1] <= bound:
        return "yes"
    return "in real time" if row.at_once is not None and row.at_once <= bound else "**no**"


def _table(rows: dict[str, Row | None]) -> str:
    from bench.figures import in_words

    alone = sorted(time for row in rows.values() if row for time in row.alone)
    figures = _percentiles(alone, 0.5, 0.99, 1) if alone else []
    lines = [["alone", *map(in_words, figures)]]
    for load, row in rows.items():
        if row is None:
            lines.append([LOADS[load].words, "not measured"])
            continue
        bound = _TIMES * figures[1] + row.once
        at_once = "" if row.at_once is None else in_words(row.at_once)
        errors = ", ".join(f"{count} {name}" for name, count in row.errors.items())
        cells = [*map(in_words, row.beside), at_once, in_words(row.once), in_words(bound), _kept(row, bound), errors]
        lines.append([LOADS[load].words, *cells, f"{row.done:,}", f"{row.refused:,}"])
    columns = _HEAD.count("|") - 1
    cells = [f"| {' | '.join([*line, *[''] * (columns - len(line))])} |" for line in lines]
    return "\n".join([_HEAD, "|---|" + "---:|" * (columns - 1), *cells])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description="What a neighbour costs.")
    parser.add_argument("versions", nargs="*", metavar="NAME=PYTHON", help="interpreters that have a capmarshal each")
    parser.add_argument("--load", action="append", choices=LOADS, help="only this one")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="for each")
    parser.add_argument("--quick", action="store_true", help="whether it works, not how well")
    return parser.parse_args()


def _main() -> None:
    """Measures each load with one version after the other, so that what else the machine does meets them alike."""
    options = _parse()
    # Not in the processes of the versions: these may have no pyperf.
    from bench import figures

    versions = dict(version.split("=", 1) for version in options.versions) or {"now": sys.executable}
    seconds = _QUICK_SECONDS if options.quick else options.seconds
    rows: dict[str, dict[str, Row | None]] = {name: {} for name in versions}
    for load in options.load or LOADS:
        for name, python in versions.items():
            print(f"{load}, {name}", file=sys.stderr)
            rows[name][load] = _measure(str(Path(python).absolute()), load, seconds)
    print(_PAGE.format(conditions=figures.briefly(), seconds=seconds))
    for name, of_version in rows.items():
        print(f"## {name}\n\n{_table(of_version)}\n")


if __name__ == "__main__":
    _main()
