"""Where the processes of a measurement run, and how many descriptors they may have open."""

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

# What a process needs in its table beside the descriptors that it is asked for.
_SPARE = 256

PLACES = ONE_CORE, TWO_CORES = "one core", "two cores"


class Cores(NamedTuple):
    """Where the two processes run."""

    client: int
    server: int

    @property
    def kind(self) -> str:
        """Which of the places it is, on any machine."""
        return ONE_CORE if self.client == self.server else TWO_CORES

    def __str__(self) -> str:
        numbers = str(self.client) if self.client == self.server else f"{self.client} and {self.server}"
        return f"{self.kind} ({numbers})"


# Before any measurement pins this process.
_usable = sorted(os.sched_getaffinity(0))


def places() -> list[Cores]:
    """Where to measure: on one core, and on two where this process may use as many."""
    # The first and the second; or the only one.
    return [Cores(_usable[0], other) for other in _usable[:2]]


def _set(process: int, usable: set[int]) -> None:
    # An affinity is a thread's own, and a new thread's is that of its creator.
    for thread in Path(f"/proc/{process}/task").iterdir():
        # It may just have ended.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), usable)


def run_on(cpu: int) -> None:
    """Has this process run on one core."""
    _set(os.getpid(), {cpu})


def run_anywhere() -> None:
    """Has this process run where it could when it began."""
    _set(os.getpid(), set(_usable))


def family_runs_on(process: int, cpu: int) -> None:
    """Has another process run on one core, and those that it started."""
    _set(process, {cpu})
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                family_runs_on(int(child), cpu)


def table() -> int:
    """How many descriptors a process may have open: the soft limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def room_in_table(wanted: int) -> int:
    """Makes room for so many descriptors, here and in the processes to come; for how many there is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    all_of_it = wanted + _SPARE
    if table() < all_of_it:
        soft = all_of_it if hard == resource.RLIM_INFINITY else min(all_of_it, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, table() - _SPARE)
