"""What the peers share: the client that is timed, and how the two processes find each other and end."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bench.measuring import adding, checked, often

T = TypeVar("T")

# Seconds for the server to be there, reached only when something is wrong; and between two looks whether it is.
PATIENCE, _PAUSE = 30.0, 0.01


class Client(NamedTuple):
    """A connected client of one peer.

    Attributes:
        add: its call.
        close: ends the connection.
        inode: its call with a descriptor, which is borrowed; None if it has none.
        runner: of the event loop in which these calls are awaited; None where they block.
    """

    add: Callable[[int, int], Any]
    close: Callable[[], object]
    inode: Callable[[int], Any] | None = None
    runner: asyncio.Runner | None = None

    def add_often(self, calls: int) -> float:
        """Seconds for one call of ``add``; each result is checked."""
        if self.runner is not None:
            return self.runner.run(_awaited_often(self.add, (1, 2), 3, calls))
        return often(adding(self.add), calls)

    def pass_often(self, number: int, calls: int) -> float:
        """Seconds for one call that hands the descriptor over, and answers its inode; of those that can."""
        if self.inode is None:
            raise NotImplementedError
        expected = os.fstat(number).st_ino
        if self.runner is not None:
            return self.runner.run(_awaited_often(self.inode, (number,), expected, calls))
        return often(checked(self.inode, (number,), expected), calls)


async def _awaited_often(
    call: Callable[..., Awaitable[Any]], arguments: tuple[int, ...], expected: int, calls: int
) -> float:
    """:func:`often`, and :func:`checked`, for calls that are awaited."""
    for repeats in (calls // 10 + 1, calls):
        begin = time.perf_counter_ns()
        for _ in range(repeats):
            if await call(*arguments) != expected:
                raise SystemExit("a wrong result came")
        taken = time.perf_counter_ns() - begin
    return taken / calls / 1e9


def path(directory: str) -> str:
    """Where the server listens."""
    return str(Path(directory, "socket"))


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


def await_listener(directory: str) -> None:
    """Returns when the server listens."""
    patiently(lambda: _require_listener(path(directory)), ConnectionRefusedError)


def _require_listener(where: str) -> None:
    for line in Path("/proc/net/unix").read_text().splitlines():
        # Flags: __SO_ACCEPTCON is the only one, include/uapi/linux/net.h.
        if line.endswith(f" {where}") and line.split()[3] == "00010000":
            return
    raise ConnectionRefusedError(f"nobody listens at {where}")


def end_with_input() -> None:
    """Ends this process when its standard input ends, whatever it does then."""
    threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    # Not sys.stdin, whose lock the main thread's exit would wait for.
    while os.read(0, 1024):
        pass
    os._exit(0)
