"""What the benchmarks of this directory share: where they run, how they start a server, how figures are summed up."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import queue
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import capmarshal as cm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HERE = Path(__file__).parent
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


def places() -> list[Cores]:
    """Where to measure: on one core, and on two where this process may use as many."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) == 1:
        return [Cores(usable[0], usable[0])]
    return [Cores(usable[0], usable[0]), Cores(usable[0], usable[1])]


def run_on(cpu: int) -> None:
    """Has this process run on one core: an affinity is a thread's own, and a new thread's is that of its creator."""
    for thread in Path("/proc/self/task").iterdir():
        # It may just have ended.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {cpu})


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


def figures(values: Sequence[float]) -> dict[str, Any]:
    """A spread and all that it is of, as they stand in a file."""
    return Spread.of(values)._asdict() | {"rounds": list(values)}


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            # Not on every architecture: proc_cpuinfo(5).
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    return {
        "capmarshal": metadata.version("capmarshal"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
    }


def in_words(conditions: dict[str, str | int]) -> str:
    """What :func:`machine` said, in one line."""
    return ", ".join(f"{name} {value}" for name, value in conditions.items())


def at_least(least: int) -> Callable[[str], int]:
    """For an option: a number that is not less."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def run(*command: str) -> str:
    """What a program printed; its errors are its own to report."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}")
    return done.stdout


def compile_c(source: str, directory: str) -> Path:
    """A C program of this directory, made in another."""
    program = Path(directory, Path(source).stem)
    try:
        run("cc", "-O2", "-o", str(program), str(_HERE / source))
    except FileNotFoundError:
        raise SystemExit("there is no C compiler: cc is not on the PATH") from None
    return program


class Host(cm.Interface):
    """What a benchmark gives its server: all that the server holds."""

    @cm.method
    def offer(self, target: cm.Capability) -> None:
        """Takes what is to be called."""


class _Host(Host):
    def __init__(self) -> None:
        self.offered: queue.SimpleQueue[cm.Capability] = queue.SimpleQueue()

    def offer(self, target: cm.Capability) -> None:
        """Takes what is to be called."""
        self.offered.put(target)


@contextlib.contextmanager
def served(script: str) -> Iterator[cm.Capability]:
    """The object that a script of this directory serves, in a process of its own: see :func:`serve`."""
    host = _Host()
    with contextlib.ExitStack() as running:
        # Ends before anything is measured: then no thread but the calling one does anything here, as in most clients.
        with cm.Entrypoint("host") as entrypoint:
            command = [sys.executable, str(_HERE / script)]
            server = cm.spawn(command, parent=entrypoint.manage(host), stdin=subprocess.PIPE)
            running.callback(_end, server)
            offered = _await_offer(host, server)
        yield offered


def _await_offer(host: _Host, server: subprocess.Popen[Any]) -> cm.Capability:
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


def serve(entrypoint: cm.Entrypoint, target: cm.Interface) -> None:
    """In that process: serves until its standard input ends, so it goes when the benchmark does, however that ends."""
    with entrypoint:
        cm.parent().cast(Host).offer(entrypoint.manage(target))
        # Ctrl-C reaches the whole process group: the benchmark's own words about it are enough.
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.buffer.read()
