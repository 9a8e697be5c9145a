"""``import capmarshal`` against ``import asyncio``, in fresh interpreters, without what those take by themselves."""

import os
import sys
from collections.abc import Iterator
from functools import partial

from bench.measuring import Goal, Report, Work
from bench.processes import places, run_on

TAKES, ROUNDS = "25 s", 21
_TARGET = 0.8
_CAPMARSHAL, _ASYNCIO = "import capmarshal", "import asyncio"
# What a process needs that makes calls or serves them.
_INTERFACE = "from capmarshal import Interface"


def _start(source: str) -> float:
    """Seconds of processor time: not those in which it waited for others."""
    process = os.posix_spawn(sys.executable, [sys.executable, "-I", "-c", source], os.environ)
    _, status, used = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(f"{source} ended with status {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


def _take(source: str, starts: int) -> float:
    """Seconds of processor time for one, without those of a start that imports nothing."""
    return sum(_start(source) - _start("pass") for _ in range(starts)) / starts


def run(report: Report) -> Iterator[Work]:
    starts = report.loops(5, 1)
    cores = places()[0]
    run_on(cores.client)
    timed = {source: partial(_take, source, starts) for source in (_CAPMARSHAL, _INTERFACE, _ASYNCIO)}
    for take in timed.values():
        # Compiled, and in the page cache.
        take()
    timed["a bare start"] = partial(_start, "pass")
    yield Work(cores.named(), cores, timed, [Goal(_CAPMARSHAL, _ASYNCIO, _TARGET), Goal(_INTERFACE, _ASYNCIO)])
    run_on()
