"""What the peers share: the client that is timed, and how the two processes find each other and end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator

T = TypeVar("T")

# Seconds for the server to be there; reached only when something is wrong.
PATIENCE = 30.0
# Between two looks whether it is.
_PAUSE = 0.01


class Client(Protocol):
    """A connected client of one peer."""

    def add_often(self, calls: int) -> float:
        """Nanoseconds for so many calls of ``add``, one after the other; each result is checked."""
        ...

    def pass_often(self, number: int, calls: int) -> float:
        """Nanoseconds for so many calls that hand the descriptor over, and answer its inode; borrowed.

        Raises:
            NotImplementedError: the peer cannot, see its ``CANNOT``.
        """
        ...

    def run_on(self, cpu: int) -> None:
        """Has the server run on one core from here on, and what it started."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class _Server:
    """What a client knows of its server's process."""

    def __init__(self, directory: str) -> None:
        self._pid = pid(directory)

    def run_on(self, cpu: int) -> None:
        """Has the server run on one core from here on, and what it started."""
        for pid in _family(self._pid):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                # It may just have ended.
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), {cpu})


class Blocking(_Server):
    """A client whose calls block."""

    def __init__(
        self,
        directory: str,
        add: Callable[[int, int], int],
        close: Callable[[], object],
        inode: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(directory)
        self._add = add
        self._inode = inode
        self._close = close

    def add_often(self, calls: int) -> float:
        """Nanoseconds for so many calls of ``add``, one after the other; each result is checked."""
        add = self._add
        numbers = _numbers(calls)
        begin = time.perf_counter_ns()
        for number in numbers:
            if add(number, 2) != number + 2:
                raise SystemExit("a wrong result came")
        return time.perf_counter_ns() - begin

    def pass_often(self, number: int, calls: int) -> float:
        """Nanoseconds for so many calls that hand the descriptor over, and answer its inode; borrowed."""
        if self._inode is None:
            raise NotImplementedError
        inode = self._inode
        expected = os.fstat(number).st_ino
        begin = time.perf_counter_ns()
        for _ in range(calls):
            if inode(number) != expected:
                raise SystemExit("another file came")
        return time.perf_counter_ns() - begin

    def close(self) -> None:
        """Ends the connection."""
        self._close()


class Awaiting(_Server):
    """A client whose calls are awaited, in an event loop of its own: each measurement is one run of it."""

    def __init__(
        self,
        directory: str,
        runner: asyncio.Runner,
        add: Callable[[int, int], Awaitable[int]],
        disconnect: Callable[[], Coroutine[Any, Any, object]],
        inode: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        super().__init__(directory)
        self._runner = runner
        self._add = add
        self._inode = inode
        self._disconnect = disconnect

    def add_often(self, calls: int) -> float:
        """Nanoseconds for so many calls of ``add``, one after the other; each result is checked."""
        return self._runner.run(self._add_often(calls))

    async def _add_often(self, calls: int) -> float:
        add = self._add
        numbers = _numbers(calls)
        begin = time.perf_counter_ns()
        for number in numbers:
            if await add(number, 2) != number + 2:
                raise SystemExit("a wrong result came")
        return time.perf_counter_ns() - begin

    def pass_often(self, number: int, calls: int) -> float:
        """Nanoseconds for so many calls that hand the descriptor over, and answer its inode; borrowed."""
        return self._runner.run(self._pass_often(number, calls))

    async def _pass_often(self, number: int, calls: int) -> float:
        if self._inode is None:
            raise NotImplementedError
        inode = self._inode
        expected = os.fstat(number).st_ino
        begin = time.perf_counter_ns()
        for _ in range(calls):
            if await inode(number) != expected:
                raise SystemExit("another file came")
        return time.perf_counter_ns() - begin

    def close(self) -> None:
        """Ends the connection and the loop."""
        with self._runner:
            self._runner.run(self._disconnect())


def missing(package: str) -> str:
    """That a module is not installed; empty if it is."""
    return "" if importlib.util.find_spec(package) else f"{package} is not installed"


def version(package: str | None) -> str:
    """That of an installed package, or of Python where there is none."""
    return metadata.version(package) if package else "Python " + ".".join(map(str, sys.version_info[:3]))


def pid(directory: str) -> int:
    """That of the server, once it listens."""
    return int(Path(directory, "pid").read_text())


def path(directory: str) -> str:
    """Where the server listens."""
    return str(Path(directory, "socket"))


def patiently(attempt: Callable[[], T], *absences: type[Exception]) -> T:
    """What an attempt returns that is made until the server is there.

    Args:
        attempt: connects, or raises.
        absences: what it raises while the server is not there.

    Raises:
        Exception: the attempt's last, after :data:`PATIENCE`.
    """
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except absences:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE)


async def patiently_awaited(attempt: Callable[[], Awaitable[T]], *absences: type[Exception]) -> T:
    """:func:`patiently`, for an attempt that is awaited."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return await attempt()
        except absences:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(_PAUSE)


def end_with_input() -> None:
    """Ends this process when its standard input ends, whatever it does then."""
    threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    # Not sys.stdin, whose lock the main thread's exit would wait for.
    while os.read(0, 1024):
        pass
    os._exit(0)


def _numbers(calls: int) -> Iterable[int]:
    return itertools.islice(itertools.cycle(range(100)), calls)


def _family(pid: int) -> Iterator[int]:
    """A process, and those that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
