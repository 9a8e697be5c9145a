"""``import capmarshal`` against ``import asyncio``, in fresh interpreters, without what those take by themselves."""

import os
import subprocess
import sys
from functools import partial

from bench import places
from bench.measuring import Comparison, Report, Settings, interleave

TAKES = "15 s"
_STARTS, _QUICK_STARTS, _ROUNDS = 5, 1, 21
_TARGET = 0.8
_BARE, _ASYNCIO, _CAPMARSHAL = "a bare start", "import asyncio", "import capmarshal"
# What a process needs that makes calls or serves them.
_INTERFACE = "from capmarshal import Interface"
_SOURCES = {_CAPMARSHAL: _CAPMARSHAL, _INTERFACE: _INTERFACE, _ASYNCIO: _ASYNCIO, _BARE: "pass"}


def _start(source: str, starts: int) -> float:
    """Seconds of processor time for one: not those in which it waited for others."""
    taken = 0.0
    for _ in range(starts):
        process = subprocess.Popen([sys.executable, "-I", "-c", source])
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{source} ended with status {process.returncode}")
        taken += used.ru_utime + used.ru_stime
    return taken / starts


def run(settings: Settings) -> Report:
    """Measures it on one core."""
    starts = _QUICK_STARTS if settings.quick else _STARTS
    cores = places.places()[0]
    places.run_on(cores.client)
    for source in _SOURCES.values():
        # Compiled, and in the page cache.
        _start(source, 1)
    timed = {name: partial(_start, source, starts) for name, source in _SOURCES.items()}
    figures = interleave(timed, settings.rounds_or(_ROUNDS))
    bare = figures.pop(_BARE)
    figures = {name: [a - b for a, b in zip(own, bare, strict=True)] for name, own in figures.items()}
    report = Report(settings={"loops": starts})
    if any(value <= 0 for own in figures.values() for value in own):
        report.notes.append("an import took no longer than a bare start: this machine is too busy")
        return report
    compared = Comparison("", cores.kind, cores, {**figures, _BARE: bare})
    compared.compare(_CAPMARSHAL, _ASYNCIO, _TARGET)
    compared.compare(_INTERFACE, _ASYNCIO)
    report.comparisons.append(compared)
    return report
