"""What a call costs: a typed call of capmarshal's against C on the same sockets, measured in one run.

Each round measures every contender once, one after the other, so that what else the machine does meets them all
alike; a ratio is taken within its round.  README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from call_server import Adder, Host

import capmarshal as cm
from capmarshal import _wire
from capmarshal._codec import Outgoing
from capmarshal._interface import methods_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HERE = Path(__file__).parent
_CAPMARSHAL, _KEPT, _FRESH = "capmarshal, typed call", "C, kept channel", "C, reply socketpair per call"
# Seconds for the server to start, and to end; reached only when something is wrong.
_SERVER_PATIENCE = 30.0


class Cores(NamedTuple):
    """Where the two processes run."""

    client: int
    server: int

    def __str__(self) -> str:
        if self.client == self.server:
            return f"one core ({self.client})"
        return f"two cores ({self.client} and {self.server})"


class Spread(NamedTuple):
    """Median and quartiles of what was measured."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of two values or more."""
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{self.median:8.2f}  ({self.lower:.2f} - {self.upper:.2f})"


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
            "microseconds": Spread.of(self.microseconds)._asdict() | {"rounds": self.microseconds},
            "ratio": Spread.of(self.ratios)._asdict() | {"rounds": self.ratios},
        }


class _Host(Host):
    def __init__(self) -> None:
        self.offered: queue.SimpleQueue[Adder] = queue.SimpleQueue()

    def offer(self, adder: Adder) -> None:
        """Takes what is to be called."""
        self.offered.put(adder)


@contextlib.contextmanager
def served_adder() -> Iterator[Adder]:
    """An adder that a process of its own serves."""
    host = _Host()
    command = [sys.executable, str(_HERE / "call_server.py")]
    with contextlib.ExitStack() as running:
        # Ends before anything is measured: then no thread but the calling one does anything here, as in most clients.
        with cm.Entrypoint("host") as entrypoint:
            server = cm.spawn(command, parent=entrypoint.manage(host), stdin=subprocess.PIPE)
            running.callback(_end, server)
            adder = _await_offer(host, server)
        yield adder


def _await_offer(host: _Host, server: subprocess.Popen[Any]) -> Adder:
    give_up = time.monotonic() + _SERVER_PATIENCE
    while server.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(queue.Empty):
            return host.offered.get(timeout=0.1)
    raise SystemExit("the server did not start")


def _end(server: subprocess.Popen[Any]) -> None:
    try:
        # Closes its standard input, which it takes as the end.
        server.communicate(timeout=_SERVER_PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()
        raise SystemExit("the server did not end") from None
    if server.returncode != 0:
        raise SystemExit(f"the server ended with status {server.returncode}")


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
    os.sched_setaffinity(0, {cores.client})
    _add_often(adder, calls // 10 + 1)
    return _add_often(adder, calls) / calls / 1000


def measure_c(program: Path, mode: str, sizes: tuple[int, int], calls: int, cores: Cores) -> float:
    """Microseconds per round trip; the program warms up as :func:`measure_capmarshal` does."""
    blocks = 1
    arguments = (calls, blocks, cores.client, cores.server, *sizes)
    return float(_run(str(program), mode, *map(str, arguments))) / 1000


def _run(*command: str) -> str:
    """What a program printed; its errors are its own to report."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}")
    return done.stdout


def compile_c(directory: str) -> Path:
    """The C program, made in ``directory``."""
    program = Path(directory, "pingpong")
    try:
        _run("cc", "-O2", "-o", str(program), str(_HERE / "pingpong.c"))
    except FileNotFoundError:
        raise SystemExit("there is no C compiler: cc is not on the PATH") from None
    return program


def measure(contenders: dict[str, Callable[[int, Cores], float]], rounds: int, calls: int, cores: Cores) -> list[Row]:
    """Every contender once per round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(contender(calls, cores))
    return [
        Row(cores, name, own, [a / b for a, b in zip(own, times[_KEPT], strict=True)]) for name, own in times.items()
    ]


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            # Not on every architecture: proc_cpuinfo(5).
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def machine(cores: int) -> dict[str, str | int]:
    """What the figures depend on."""
    return {
        "capmarshal": metadata.version("capmarshal"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cores": cores,
    }


def print_table(rows: list[Row]) -> None:
    """A table for each place."""
    width = max(len(row.contender) for row in rows)
    for cores, group in itertools.groupby(rows, lambda row: row.cores):
        print(f"\n{cores!s:{width + 2}}  {'us per call':28}  times C, kept channel")
        for row in group:
            print(f"  {row.contender:{width}}  {Spread.of(row.microseconds)!s:28}  {Spread.of(row.ratios)}")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def main() -> None:
    """Measures, and reports."""
    parser = argparse.ArgumentParser(description="What a call costs: capmarshal against C on the same sockets.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument(
        "--rounds", type=_at_least(2), metavar="N", default=15, help="how often each is measured (%(default)s)"
    )
    parser.add_argument(
        "--calls", type=_at_least(1), metavar="N", default=5000, help="calls in each measurement (%(default)s)"
    )
    options = parser.parse_args()

    usable = sorted(os.sched_getaffinity(0))
    places = [Cores(usable[0], usable[0])]
    if len(usable) > 1:
        places.append(Cores(usable[0], usable[1]))
    conditions = machine(len(usable))
    sizes = record_sizes()
    print(", ".join(f"{name} {value}" for name, value in conditions.items()))
    print(f"CALL {sizes[0]} bytes, REPLY {sizes[1]} bytes; {options.rounds} rounds of {options.calls} calls")
    print("median (lower - upper quartile)")

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory, served_adder() as adder:
        program = compile_c(directory)
        contenders = {
            _CAPMARSHAL: lambda calls, cores: measure_capmarshal(adder, calls, cores),
            _KEPT: lambda calls, cores: measure_c(program, "kept", sizes, calls, cores),
            _FRESH: lambda calls, cores: measure_c(program, "fresh", sizes, calls, cores),
        }
        for cores in places:
            rows += measure(contenders, options.rounds, options.calls, cores)
    print_table(rows)
    if len(usable) == 1:
        print("\ntwo cores: skipped, since this process may use only one")
    if options.json:
        settings = {"rounds": options.rounds, "calls": options.calls, "call_bytes": sizes[0], "reply_bytes": sizes[1]}
        report = {"machine": conditions, "settings": settings, "rows": [row.to_json() for row in rows]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
