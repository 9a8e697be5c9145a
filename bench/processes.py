"""The processes of a benchmark: what each runs, on which cores, how they start and end, what room they have.

``python -m bench.processes MODULE FUNCTION ARGUMENT...`` is one of them.  A function that is awaited runs in an event
loop, of the kind that its first argument says.
"""

import contextlib
import importlib
import inspect
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import capmarshal as cm
from bench import CHECKOUT

# Seconds for a process to start, and to end; reached only when something is wrong.
PATIENCE = 60.0
# What a process needs in its table beside the descriptors that it is asked for.
_SPARE = 256
ONE_CORE, TWO_CORES = "one core", "two cores"
Process = subprocess.Popen[str]
T = TypeVar("T")


class Cores(NamedTuple):
    """Where the two processes run."""

    client: int
    server: int

    @property
    def kind(self) -> str:
        """Which of the places it is, on any machine."""
        return ONE_CORE if self.client == self.server else TWO_CORES

    def __str__(self) -> str:
        return f"{self.kind} ({' and '.join(map(str, dict.fromkeys(self)))})"


# Before any measurement pins this process.
_usable = sorted(os.sched_getaffinity(0))


def places() -> list[Cores]:
    """Where to measure: on one core, and on two where this process may use as many."""
    return [Cores(_usable[0], other) for other in _usable[:2]]


def run_on(*cpus: int) -> None:
    """Has this process, and those that it starts, run on these cores; on none: where it could when it began."""
    # An affinity is a thread's own, and a new thread's or process's is that of its creator.
    for thread in Path("/proc/self/task").iterdir():
        # It may just have ended.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cpus or _usable)


def make_room(wanted: int) -> None:
    """Makes room for so many descriptors, here and in the processes to come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted + _SPARE:
        raise SystemExit(f"{wanted:,} descriptors are too many for the hard limit of open files (ulimit -Hn), {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + _SPARE), hard))


@contextlib.contextmanager
def running(
    role: Callable[..., object],
    *arguments: object,
    cores: Cores | None = None,
    parent: cm.Capability | None = None,
    under: Sequence[str] = (),
    **options: Any,
) -> Iterator[Process]:
    """A process that does this, a module's function, on its core; this process is on its own from then on.

    It ends with its standard input, which is the block's end.  It is given the capability; ``under`` is a command that
    runs the rest of its arguments, and the options are Popen's.
    """
    command = [*under, sys.executable, "-m", "bench.processes", role.__module__, role.__name__, *map(str, arguments)]
    start = subprocess.Popen if parent is None else partial(cm.spawn, parent=parent)
    if cores is not None:
        run_on(cores.server)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process: Process = start(command, cwd=CHECKOUT, text=True, **(pipes | options))
    if cores is not None:
        run_on(cores.client)
    try:
        yield process
    finally:
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with status {process.returncode}")


def await_end() -> None:
    """In that process: returns when the benchmark ends it, or has itself ended, however that came."""
    sys.stdin.read()


def line_of(process: Process, tell: str = "") -> str:
    """The next line that a process prints, after it was told one, where there is something to tell."""
    if tell:
        print(tell, file=process.stdin, flush=True)
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit(f"{process.args!r} ended")
    return line.strip()


@contextlib.contextmanager
def listening(cores: Cores, role: Callable[..., object], *arguments: object) -> Iterator[str]:
    """Where a process listens that does this, as long as the block runs: its last argument."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "socket"))
        with running(role, *arguments, path, cores=cores):
            await_listener(path)
            yield path


def patiently(attempt: Callable[[], T], absence: type[Exception]) -> T:
    """What an attempt returns that is made until it no longer raises this; raises it after :data:`PATIENCE`."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except absence:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def await_listener(path: str) -> None:
    """Returns when somebody listens there."""

    def look() -> None:
        for line in Path("/proc/net/unix").read_text().splitlines():
            # Flags: __SO_ACCEPTCON is the only one, include/uapi/linux/net.h.
            if line.endswith(f" {path}") and line.split()[3] == "00010000":
                return
        raise ConnectionRefusedError(f"nobody listens at {path}")

    patiently(look, ConnectionRefusedError)


def _main(module: str, name: str, *arguments: str) -> None:
    role = getattr(importlib.import_module(module), name)
    # Ctrl-C reaches the whole process group: the benchmark's own words about it are enough.
    with contextlib.suppress(KeyboardInterrupt):
        if inspect.iscoroutinefunction(role):
            from bench import loops

            loops.run(arguments[0], role, *arguments[1:])
        else:
            role(*arguments)


if __name__ == "__main__":
    _main(*sys.argv[1:])
