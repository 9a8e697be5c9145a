"""What a call costs: a typed call of capmarshal's against C on the same sockets, measured in one run.

Each round measures every contender once, one after the other, so that what else the machine does meets them all
alike; a ratio is taken within its round.  README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import measuring
from call_server import Adder
from measuring import Cores, Spread, at_least

from capmarshal import _wire
from capmarshal._codec import Outgoing
from capmarshal._interface import methods_of

if TYPE_CHECKING:
    from collections.abc import Callable

_CAPMARSHAL, _KEPT, _FRESH = "capmarshal, typed call", "C, kept channel", "C, reply socketpair per call"


class Row(NamedTuple):
    """One contender at one place; the ratio is to the kept channel in C of the same round."""

    cores: Cores
    contender: str
    microseconds: list[float]
    ratios: list[float]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "contender": self.contender,
            "client_core": self.cores.client,
            "server_core": self.cores.server,
            "microseconds": measuring.figures(self.microseconds),
            "ratio": measuring.figures(self.ratios),
        }


def record_sizes() -> tuple[int, int]:
    """How many bytes capmarshal's CALL and REPLY for ``add(1, 2)`` have, for C to carry as many."""
    add = methods_of(Adder)[b"add"]
    arguments = add.encode_arguments((1, 2), Outgoing())
    call = _wire.pack_call(1, bytes(_wire.BADGE_SIZE), _wire.NO_LIMIT, 0, add.wire_name, [], 0, arguments)
    reply = _wire.pack_reply(1, [], 0, add.encode_result(3, Outgoing()))
    return len(call), len(reply)


def _add_often(adder: Adder, calls: int) -> int:
    """Nanoseconds for so many calls; each result is checked."""
    # Small numbers: every record has the size that record_sizes() says.
    numbers = itertools.islice(itertools.cycle(range(100)), calls)
    add = adder.add
    begin = time.perf_counter_ns()
    for number in numbers:
        if add(number, 2) != number + 2:
            raise SystemExit("a wrong result came")
    return time.perf_counter_ns() - begin


def measure_capmarshal(adder: Adder, calls: int, cores: Cores) -> float:
    """Microseconds per call."""
    adder.run_on(cores.server)
    measuring.run_on(cores.client)
    _add_often(adder, calls // 10 + 1)
    return _add_often(adder, calls) / calls / 1000


def measure_c(program: Path, mode: str, sizes: tuple[int, int], calls: int, cores: Cores) -> float:
    """Microseconds per round trip; the program warms up as :func:`measure_capmarshal` does."""
    blocks = 1
    arguments = (calls, blocks, cores.client, cores.server, *sizes)
    return float(measuring.run(str(program), mode, *map(str, arguments))) / 1000


def measure(contenders: dict[str, Callable[[int, Cores], float]], rounds: int, calls: int, cores: Cores) -> list[Row]:
    """Every contender once per round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(contender(calls, cores))
    return [
        Row(cores, name, own, [a / b for a, b in zip(own, times[_KEPT], strict=True)]) for name, own in times.items()
    ]


def print_table(rows: list[Row]) -> None:
    """A table for each place."""
    width = max(len(row.contender) for row in rows)
    for cores, group in itertools.groupby(rows, lambda row: row.cores):
        print(f"\n{cores!s:{width + 2}}  {'us per call':28}  times C, kept channel")
        for row in group:
            print(f"  {row.contender:{width}}  {Spread.of(row.microseconds)!s:28}  {Spread.of(row.ratios)}")


def main() -> None:
    """Measures, and reports."""
    parser = argparse.ArgumentParser(description="What a call costs: capmarshal against C on the same sockets.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument(
        "--rounds", type=at_least(2), metavar="N", default=15, help="how often each is measured (%(default)s)"
    )
    parser.add_argument(
        "--calls", type=at_least(1), metavar="N", default=5000, help="calls in each measurement (%(default)s)"
    )
    options = parser.parse_args()

    conditions = measuring.machine()
    places = measuring.places()
    sizes = record_sizes()
    print(measuring.in_words(conditions))
    print(f"CALL {sizes[0]} bytes, REPLY {sizes[1]} bytes; {options.rounds} rounds of {options.calls} calls")
    print("median (lower - upper quartile)")

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory, measuring.served("call_server.py") as served:
        adder = served.cast(Adder)
        program = measuring.compile_c("pingpong.c", directory)
        contenders = {
            _CAPMARSHAL: lambda calls, cores: measure_capmarshal(adder, calls, cores),
            _KEPT: lambda calls, cores: measure_c(program, "kept", sizes, calls, cores),
            _FRESH: lambda calls, cores: measure_c(program, "fresh", sizes, calls, cores),
        }
        for cores in places:
            rows += measure(contenders, options.rounds, options.calls, cores)
    print_table(rows)
    if len(places) == 1:
        print("\ntwo cores: skipped, since this process may use only one")
    if options.json:
        settings = {"rounds": options.rounds, "calls": options.calls, "call_bytes": sizes[0], "reply_bytes": sizes[1]}
        report = {"machine": conditions, "settings": settings, "rows": [row.to_json() for row in rows]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
