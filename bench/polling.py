"""capmarshal with and without polling before it sleeps, where it helps and where it might harm.

``python -m bench.polling`` is a client process: told on its standard input what to measure, it answers with seconds.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from bench import CHECKOUT, in_c, places, processes, servers
from bench.measuring import Comparison, Report, Settings, adding, often
from bench.places import ONE_CORE, TWO_CORES, Cores
from bench.servers import Works

TAKES = "75 s"
# As many as take a while where each waits for a time slice: a scheduler's slice is some milliseconds.
_CALLS, _QUICK_CALLS, _ROUNDS = 2000, 20, 21
_TARGET = 1.05

_POLLING, _SLEEPING, _KEPT = "capmarshal, polling", "capmarshal, sleeping", "C, kept channel"
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
def _busy(cpus: Sequence[int]) -> Iterator[None]:
    """Processes that do nothing but use a core each, as long as the block runs."""
    with contextlib.ExitStack() as stack:
        for cpu in cpus:
            command = [sys.executable, "-I", "-S", "-c", _BUSY_LOOP, str(cpu)]
            loop = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(loop.kill)
            if loop.stdout is not None:
                loop.stdout.readline()
        yield


@contextlib.contextmanager
def _clients(names: Sequence[str]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Client processes with a server of their own each; each reads at its start whether it is to poll."""
    with contextlib.ExitStack() as stack:
        made = {}
        for name in names:
            environment, pipe = {**os.environ, _SWITCH: _VALUES[name]}, subprocess.PIPE
            command = processes.command("polling")
            made[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=CHECKOUT, env=environment)
            stack.callback(processes.end, made[name])
        yield made


def _seconds(client: subprocess.Popen[bytes], calls: int, cores: Cores) -> float:
    """For one call."""
    return float(processes.line_of(client, f"{calls} {cores.client} {cores.server}"))


def _situations() -> Iterator[tuple[Comparison, Cores, list[int]]]:
    """Where the two processes run, and on which cores somebody else is busy."""
    one, *two = places.places()
    found: list[tuple[str, Cores, list[int]]] = [(ONE_CORE, one, [])]
    for cores in two:
        found += [
            (TWO_CORES, cores, []),
            ("two cores, a busy loop on one", cores, [cores.client]),
            ("two cores, busy loops on both", cores, [*cores]),
        ]
    for where, cores, busy in found:
        yield Comparison("", where, cores, {name: [] for name in (*_VALUES, _KEPT)}), cores, busy


def run(settings: Settings) -> Report:
    """Measures it in each situation.

    Each round has new processes: two that are alike differ by some per cent all their life, by where their memory
    happens to be.
    """
    calls = _QUICK_CALLS if settings.quick else _CALLS
    situations = list(_situations())
    with in_c.compiled() as program:
        for number in range(settings.rounds_or(_ROUNDS)):
            with _clients(list(_VALUES)[:: -1 if number % 2 else 1]) as clients:
                for client in clients.values():
                    # Untimed: all that a process does for the first time.
                    _seconds(client, calls, situations[0][1])
                for compared, cores, busy in situations:
                    with _busy(busy):
                        # There and back: neither is always the first.
                        there = {name: _seconds(client, calls, cores) for name, client in clients.items()}
                        back = {name: _seconds(clients[name], calls, cores) for name in reversed(there)}
                        for name in there:
                            compared.figures[name].append((there[name] + back[name]) / 2)
                        compared.figures[_KEPT].append(program.call("kept", calls, cores))
    report = Report([compared for compared, _, _ in situations], settings={"loops": calls})
    for compared in report.comparisons:
        compared.compare(_POLLING, _SLEEPING, _TARGET)
    return report


def _main() -> None:
    with processes.served() as served:
        works = served.cast(Works)
        for line in sys.stdin:
            calls, client, server = map(int, line.split())
            servers.place(works, Cores(client, server))
            print(often(adding(works.add), calls), flush=True)


if __name__ == "__main__":
    _main()
