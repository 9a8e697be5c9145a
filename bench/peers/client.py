"""The client of a peer, which is timed."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from bench import loops
from bench.measuring import adding, checked, often


class Client(NamedTuple):
    """A connected client of one peer."""

    add: Callable[[int, int], Any]
    inode: Callable[[int], Any] | None = None  # of a descriptor, which is borrowed
    runner: asyncio.Runner | None = None  # of the event loop in which these calls are awaited; None where they block

    def add_often(self, times: int, in_flight: int = 1) -> float:
        """Seconds for one call of ``add``, of those that are awaited with so many in flight; each result is checked."""
        if self.runner is not None:
            return self.runner.run(loops.often(self.add, (1, 2), 3, times, in_flight))
        return often(adding(self.add), times)

    def pass_often(self, number: int, times: int) -> float:
        """Seconds for one call that hands the descriptor over, and answers its inode; of those that can."""
        if self.inode is None:
            raise NotImplementedError
        expected = os.fstat(number).st_ino
        if self.runner is not None:
            return self.runner.run(loops.often(self.inode, (number,), expected, times))
        return often(checked(self.inode, (number,), expected), times)
