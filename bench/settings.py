"""What the command line asks of a benchmark."""

from __future__ import annotations

from typing import NamedTuple


class Settings(NamedTuple):
    """What the command line asks of a benchmark.

    Attributes:
        rounds: how often each contender is measured; 0: as often as the benchmark does by itself.
        quick: tiny counts: whether it works, not how fast.
    """

    rounds: int
    quick: bool

    def rounds_or(self, usual: int) -> int:
        """How often."""
        return self.rounds or (2 if self.quick else usual)
