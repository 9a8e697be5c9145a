"""What the peers share: the client that is timed, and how it finds its server."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bench import loops, processes
from bench.measuring import adding, checked, often

T = TypeVar("T")

# Seconds for the server to be there, reached only when something is wrong; and between two looks whether it is.
PATIENCE, _PAUSE = 30.0, 0.01


class Client(NamedTuple):
    """A connected client of one peer.

    Attributes:
        add: its call.
        inode: its call with a descriptor, which is borrowed; None if it has none.
        runner: of the event loop in which these calls are awaited; None where they block.
    """

    add: Callable[[int, int], Any]
    inode: Callable[[int], Any] | None = None
    runner: asyncio.Runner | None = None

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


@contextlib.contextmanager
def listening(cores: processes.Cores, module: str, *arguments: str) -> Iterator[str]:
    """Where a module of this package listens, on its core, as long as the block runs: its last argument."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "socket"))
        processes.run_on(cores.server)
        with processes.running(module, *arguments, path):
            processes.run_on(cores.client)
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
            time.sleep(_PAUSE)


def await_listener(path: str) -> None:
    """Returns when somebody listens there."""

    def look() -> None:
        for line in Path("/proc/net/unix").read_text().splitlines():
            # Flags: __SO_ACCEPTCON is the only one, include/uapi/linux/net.h.
            if line.endswith(f" {path}") and line.split()[3] == "00010000":
                return
        raise ConnectionRefusedError(f"nobody listens at {path}")

    patiently(look, ConnectionRefusedError)
