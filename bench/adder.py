"""The server that adds: plain calls."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import capmarshal as cm
from bench import serving

if TYPE_CHECKING:
    from collections.abc import Callable


class Adder(serving.Station):
    """What is called."""

    @cm.method
    def add(self, a: int, b: int) -> int:
        """The sum."""


class AdderServer(serving.StationServer, Adder):
    """Adds."""

    def add(self, a: int, b: int) -> int:
        """The sum."""
        return a + b


def add_often(add: Callable[[int, int], int], calls: int) -> float:
    """Seconds for one call, after an untimed warm-up; each result is checked."""
    for times in (calls // 10 + 1, calls):
        # Small numbers: every record has the same size.
        numbers = itertools.islice(itertools.cycle(range(100)), times)
        begin = time.perf_counter_ns()
        for number in numbers:
            if add(number, 2) != number + 2:
                raise SystemExit("a wrong result came")
        taken = time.perf_counter_ns() - begin
    return taken / calls / 1e9


if __name__ == "__main__":
    serving.serve(cm.Entrypoint("adder"), AdderServer())
