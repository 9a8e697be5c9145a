"""What the peers share: the client that is timed, and how the two processes find each other and end."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from bench import places
from bench.measuring import adding, checked, often

T = TypeVar("T")

# Seconds for the server to be there, reached only when something is wrong; and between two looks whether it is.
PATIENCE, _PAUSE = 30.0, 0.01


class Client:
    """A connected client of one peer, whose calls block.

    Args:
        directory: where the server is.
        add: its call.
        close: ends the connection.
        inode: its call with a descriptor, which is borrowed; None if it has none.
    """

    def __init__(
        self,
        directory: str,
        add: Callable[[int, int], Any],
        close: Callable[[], Any],
        inode: Callable[[int], Any] | None = None,
    ) -> None:
        self._server = pid(directory)
        self._add = add
        self._inode = inode
        self._close = close

    def add_often(self, calls: int) -> float:
        """Seconds for one call of ``add``; each result is checked."""
        return often(adding(self._add), calls)

    def pass_often(self, number: int, calls: int) -> float:
        """Seconds for one call that hands the descriptor over, and answers its inode.

        Raises:
            NotImplementedError: the peer cannot, see its ``cannot``.
        """
        if self._inode is None:
            raise NotImplementedError
        return self._often(self._inode, number, calls)

    def _often(self, inode: Callable[[int], Any], number: int, calls: int) -> float:
        return often(checked(inode, (number,), os.fstat(number).st_ino), calls)

    def run_on(self, cpu: int) -> None:
        """Has the server run on one core from here on, and what it started."""
        places.family_runs_on(self._server, cpu)

    def close(self) -> None:
        """Ends the connection."""
        self._close()


class Awaiting(Client):
    """A client whose calls are awaited, in an event loop of its own: each measurement is one run of it."""

    def __init__(
        self,
        directory: str,
        runner: asyncio.Runner,
        add: Callable[[int, int], Awaitable[int]],
        disconnect: Callable[[], Coroutine[Any, Any, object]],
        inode: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        super().__init__(directory, add, disconnect, inode)
        self._runner = runner

    def add_often(self, calls: int) -> float:
        """Seconds for one call of ``add``; each result is checked."""
        return self._runner.run(_awaited_often(self._add, (1, 2), 3, calls))

    def _often(self, inode: Callable[[int], Any], number: int, calls: int) -> float:
        return self._runner.run(_awaited_often(inode, (number,), os.fstat(number).st_ino, calls))

    def close(self) -> None:
        """Ends the connection and the loop."""
        with self._runner:
            self._runner.run(self._close())


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


def pid(directory: str) -> int:
    """That of the server, once it listens."""
    return int(Path(directory, "pid").read_text())


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
