"""A typed call with polling before sleeping, against one without, where it helps and where it might harm."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from bench import CHECKOUT, places, serving
from bench.figures import Comparison, Report
from bench.pingpong import KEPT, pingpong

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.pingpong import Pingpong
    from bench.places import Cores
    from bench.settings import Settings

TAKES = "75 s"
# As many as take a while where each waits for a time slice: a scheduler's slice is some milliseconds.
_CALLS, _QUICK_CALLS, _ROUNDS = 2000, 20, 21
_TARGET = 1.05

_POLLING, _SLEEPING = "capmarshal, polling", "capmarshal, sleeping"
# What each has in its environment, and in that of its server.
_SWITCH = "CAPMARSHAL_POLL"
_VALUES = {_POLLING: "1", _SLEEPING: "0"}

# Ends with this process, however that ends.
_BUSY_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@contextlib.contextmanager
def _busy(cpu: int) -> Iterator[None]:
    """A process that does nothing but use one core, as long as the block runs."""
    command = [sys.executable, "-I", "-S", "-c", _BUSY_LOOP, str(cpu)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as loop:
        try:
            if loop.stdout is not None:
                loop.stdout.readline()
            yield
        finally:
            loop.kill()


class _Pair:
    """A client process with a server of its own; each reads at its start whether it is to poll."""

    def __init__(self, value: str) -> None:
        self.process: subprocess.Popen[Any] = subprocess.Popen(
            serving.command("polling_pair"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**os.environ, _SWITCH: value},
        )

    def measure(self, calls: int, cores: Cores) -> float:
        """Seconds for one call."""
        if self.process.stdin is None or self.process.stdout is None:
            raise AssertionError
        self.process.stdin.write(f"{calls} {cores.client} {cores.server}\n".encode())
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a client ended")
        return float(answer)


def _situations() -> Iterator[tuple[Cores, str, list[int]]]:
    """Where the two processes run; in words; and on which cores somebody else is busy."""
    one, *two = places.places()
    yield one, "one core", []
    for cores in two:
        yield cores, "two cores", []
        yield cores, "two cores, a busy loop on one", [cores.client]
        yield cores, "two cores, busy loops on both", [cores.client, cores.server]


@contextlib.contextmanager
def _pairs(names: Iterable[str]) -> Iterator[dict[str, _Pair]]:
    with contextlib.ExitStack() as stack:
        made = {}
        for name in names:
            made[name] = _Pair(_VALUES[name])
            stack.callback(serving.end, made[name].process)
        yield made


def _round(
    number: int, calls: int, program: Pingpong, comparisons: Sequence[tuple[Comparison, Cores, list[int]]]
) -> None:
    """Measures all situations once.

    With new processes: two that are alike differ by some per cent all their life, by where their memory happens to be.
    """
    with _pairs(list(_VALUES)[:: -1 if number % 2 else 1]) as pairs:
        for pair in pairs.values():
            # Untimed: all that a process does for the first time.
            pair.measure(calls, comparisons[0][1])
        for compared, cores, busy in comparisons:
            with contextlib.ExitStack() as loops:
                for cpu in busy:
                    loops.enter_context(_busy(cpu))
                # There and back: neither is always the first.
                there = {name: pair.measure(calls, cores) for name, pair in pairs.items()}
                back = {name: pairs[name].measure(calls, cores) for name in reversed(there)}
                for name in there:
                    compared.figures[name].append((there[name] + back[name]) / 2)
                compared.figures[KEPT].append(program.run("kept", calls, cores))


def run(settings: Settings) -> Report:
    """Measures it in each situation."""
    calls = _QUICK_CALLS if settings.quick else _CALLS
    comparisons = [
        (Comparison("", where, cores, {name: [] for name in (*_VALUES, KEPT)}), cores, busy)
        for cores, where, busy in _situations()
    ]
    with pingpong() as program:
        for number in range(settings.rounds_or(_ROUNDS)):
            _round(number, calls, program, comparisons)
    report = Report([compared for compared, _, _ in comparisons], settings={"loops": calls})
    for compared in report.comparisons:
        compared.compare(_POLLING, _SLEEPING, _TARGET)
    if len(comparisons) == 1:
        report.notes.append("two cores: skipped, since this process may use only one")
    return report
