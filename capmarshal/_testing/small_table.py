"""Has a process's descriptor table be full, or all but full."""

from __future__ import annotations

import contextlib
import os
import resource

from capmarshal._testing.leaks import open_descriptors


class SmallTable:
    """Its soft limit, lowered, and what is in between."""

    def __init__(self) -> None:
        self._fill: list[int] = []
        self._before: tuple[int, int] | None = None

    def shrink(self, room: int) -> None:
        """Leaves room for so many descriptors more."""
        self.restore()
        self._before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        numbers = open_descriptors()
        top = max(numbers) + 1
        for _ in range(top - len(numbers)):
            # dup(2) takes the lowest number that is free.  Ctrl-C raises nothing in the process that this is for.
            with contextlib.suppress(OSError):
                self._fill.append(os.dup(max(numbers)))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(top + room, soft), hard))

    def restore(self) -> None:
        """As before."""
        if self._before is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._before)
            self._before = None
        while self._fill:
            os.close(self._fill.pop())
