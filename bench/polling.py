"""capmarshal with and without polling before it sleeps, where it helps and where it might harm.

``python -m bench.polling CLIENT_CPU SERVER_CPU`` is a client process with a server of its own: told on its standard
input how many calls to make, it answers with seconds.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from bench import c_program
from bench.measuring import Goal, Report, Work, adding, often
from bench.processes import Cores, Process, line_of, places, running
from bench.server import served

TAKES, ROUNDS = "150 s", 21
_TARGET = 1.05

_POLLING, _SLEEPING, _KEPT = "capmarshal, polling", "capmarshal, sleeping", "C, kept channel"
# What each has in its environment, and in that of its server.
_VALUES = {_POLLING: "1", _SLEEPING: "0"}

# Ends with this process, however that ends.
_BUSY_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while os.getppid() == int(sys.argv[2]):
    for _ in range(100_000):
        pass
"""


@contextlib.contextmanager
def clients(cores: Cores, busy: Sequence[int], started: dict[str, Process]) -> Iterator[None]:
    """Clients that read at their start whether they are to poll, and busy loops on some cores; into ``started``.

    They are new in each round: two that are alike differ by some per cent all their life, by where their memory
    happens to be.
    """
    with contextlib.ExitStack() as stack:
        for name, value in _VALUES.items():
            environment = {**os.environ, "CAPMARSHAL_POLL": value}
            started[name] = stack.enter_context(running("polling", *map(str, cores), env=environment))
        for name in started:
            # Untimed: all that a process does for the first time.
            seconds(started, name, 100)
        for cpu in busy:
            command = [sys.executable, "-I", "-S", "-c", _BUSY_LOOP, str(cpu), str(os.getpid())]
            loop = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(loop.kill)
            line_of(loop)
        yield


def seconds(started: dict[str, Process], name: str, calls: int) -> float:
    """For one call."""
    return float(line_of(started[name], str(calls)))


def run(report: Report) -> Iterator[Work]:
    # As many as take a while where each waits for a time slice: a scheduler's slice is some milliseconds.
    calls = report.loops(2000, 20)
    one, *two = places()
    situations: list[tuple[str, Cores, list[int]]] = [(one.named(), one, [])]
    for cores in two:
        situations += [
            (cores.named(), cores, []),
            (f"{cores.named()}, a busy loop on one", cores, [cores.client]),
            (f"{cores.named()}, busy loops on both", cores, [*cores]),
        ]
    for name, cores, busy in situations:
        started: dict[str, Process] = {}
        timed = {name: partial(seconds, started, name, calls) for name in _VALUES}
        timed[_KEPT] = partial(c_program.call, "kept", calls, cores)
        each_round = partial(clients, cores, busy, started)
        goals = [Goal(_POLLING, _SLEEPING, _TARGET)]
        yield Work(name, cores, timed, goals, each_round=each_round, there_and_back=True)


if __name__ == "__main__":
    with served(Cores(*map(int, sys.argv[1:]))) as works:
        for line in sys.stdin:
            print(often(adding(works.add), int(line)), flush=True)
