"""Where the processes of a measurement run, and how many descriptors they may have open."""

import contextlib
import os
import resource
from pathlib import Path
from typing import NamedTuple

# What a process needs in its table beside the descriptors that it is asked for.
_SPARE = 256
ONE_CORE, TWO_CORES = "one core", "two cores"


class Cores(NamedTuple):
    """Where the two processes run."""

    client: int
    server: int

    @property
    def kind(self) -> str:
        """Which of the places it is, on any machine."""
        return ONE_CORE if self.client == self.server else TWO_CORES

    def named(self, kind: str = "") -> str:
        """A kind of work at this place; nothing is said of it where there is but one."""
        return f"{kind}, {self.kind}" if kind else self.kind

    def __str__(self) -> str:
        numbers = str(self.client) if self.client == self.server else f"{self.client} and {self.server}"
        return f"{self.kind} ({numbers})"


# Before any measurement pins this process.
_usable = sorted(os.sched_getaffinity(0))


def places() -> list[Cores]:
    """Where to measure: on one core, and on two where this process may use as many."""
    # The first and the second; or the only one.
    return [Cores(_usable[0], other) for other in _usable[:2]]


def run_on(*cpus: int) -> None:
    """Has this process, and those that it starts, run on these cores; on none: where it could when it began."""
    # An affinity is a thread's own, and a new thread's or process's is that of its creator.
    for thread in Path("/proc/self/task").iterdir():
        # It may just have ended.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cpus or _usable)


def table() -> int:
    """How many descriptors a process may have open: the soft limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def make_room(wanted: int) -> None:
    """Makes room for so many descriptors, here and in the processes to come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted + _SPARE:
        raise SystemExit(f"{wanted:,} descriptors are too many for the hard limit of open files (ulimit -Hn), {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + _SPARE), hard))
