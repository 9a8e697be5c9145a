"""Where the two processes of a measurement run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """Where the two processes run."""

    client: int
    server: int

    @property
    def kind(self) -> str:
        """Which of the places it is, on any machine."""
        return "one core" if self.client == self.server else "two cores"

    def __str__(self) -> str:
        numbers = str(self.client) if self.client == self.server else f"{self.client} and {self.server}"
        return f"{self.kind} ({numbers})"


# Before any measurement pins this process.
_usable = sorted(os.sched_getaffinity(0))


def places() -> list[Cores]:
    """Where to measure: on one core, and on two where this process may use as many."""
    # The first and the second; or the only one.
    return [Cores(_usable[0], other) for other in _usable[:2]]


def _set(usable: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        # It may just have ended.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), usable)


def run_on(cpu: int) -> None:
    """Has this process run on one core: an affinity is a thread's own, and a new thread's is that of its creator."""
    _set({cpu})


def run_anywhere() -> None:
    """Has this process run where it could when it began."""
    _set(set(_usable))
