"""A call with 1, 16 and 253 descriptors each way, against socket.send_fds and C, all with the closing."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import capmarshal as cm
from bench import by_hand, places, serving
from bench.figures import Comparison, Report, interleave
from bench.handover import DESCRIPTORS_MAX, close_all
from bench.pingpong import pingpong
from bench.swapper import Swapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.settings import Settings

TAKES = "80 s"
COUNTS = (1, 16, DESCRIPTORS_MAX)
_DESCRIPTORS, _QUICK_DESCRIPTORS, _ROUNDS = 30_000, 300, 15
_CALLS_MAX, _CALLS_MIN = 3000, 2

_CAPMARSHAL, _SEND_FDS, _C = "capmarshal", "socket.send_fds, recv_fds", "C"
_TARGETS = {_SEND_FDS: 1.0, _C: 1.2}


def _memfd() -> int:
    return os.memfd_create("bench", os.MFD_CLOEXEC)


def _file() -> int:
    return os.open(sys.executable, os.O_RDONLY | os.O_CLOEXEC)


# By the mode of the program in C: what is handed over, and how it is opened.
KINDS = {"memfds": ("memfds", _memfd), "files": ("regular files", _file)}


@contextlib.contextmanager
def opened(make: Callable[[], int], count: int) -> Iterator[list[int]]:
    """So many, as long as the block runs."""
    numbers: list[int] = []
    try:
        # One by one: what is open when the next one fails is closed all the same.
        numbers.extend(make() for _ in range(count))
        yield numbers
    finally:
        close_all(numbers)


def _check(sent: Sequence[int], came: Sequence[int]) -> None:
    if [os.fstat(number).st_ino for number in sent] != [os.fstat(number).st_ino for number in came]:
        raise SystemExit("other files came back than were sent")


def _swap_by_hand(other: by_hand.Swap, numbers: list[int], calls: int) -> float:
    """Seconds for one, with the closing of what came back."""
    came = other.swap(numbers)
    _check(numbers, came)
    close_all(came)
    for times in (calls // 10 + 1, calls):
        begin = time.perf_counter_ns()
        for _ in range(times):
            came = other.swap(numbers)
            if len(came) != len(numbers):
                raise SystemExit("files were lost")
            close_all(came)
        taken = time.perf_counter_ns() - begin
    return taken / calls / 1e9


def _swap(swapper: Swapper, numbers: list[int], calls: int) -> float:
    """The same; what the server leaves to others to close is waited for."""
    files = [cm.Descriptor(number) for number in numbers]
    came = swapper.swap(files)
    _check(numbers, [file.fileno() for file in came])
    for file in came:
        file.close()
    for times in (calls // 10 + 1, calls):
        begin = time.perf_counter_ns()
        for _ in range(times):
            came = swapper.swap(files)
            if len(came) != len(files):
                raise SystemExit("files were lost")
            for file in came:
                file.close()
        swapper.settle()
        taken = time.perf_counter_ns() - begin
    for file in files:
        file.detach()
    return taken / calls / 1e9


def run(settings: Settings) -> Report:
    """Measures each count of each kind at each place."""
    enough = _QUICK_DESCRIPTORS if settings.quick else _DESCRIPTORS
    report = Report()
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(pingpong())
        swapper = stack.enter_context(serving.served("swapper")).cast(Swapper)
        other = by_hand.Swap(stack.enter_context(serving.served_by_hand(swapper, "swap")))
        for mode, (kind, make) in KINDS.items():
            for count in COUNTS:
                calls = max(min(enough // count, _CALLS_MAX), _CALLS_MIN)
                for cores in places.places():
                    serving.place(swapper, cores)
                    with opened(make, count) as numbers:
                        contenders: dict[str, Callable[[], float]] = {
                            _CAPMARSHAL: partial(_swap, swapper, numbers, calls),
                            _SEND_FDS: partial(_swap_by_hand, other, numbers, calls),
                            _C: partial(program.run, mode, calls, cores, count),
                        }
                        figures = interleave(contenders, settings.rounds_or(_ROUNDS))
                    compared = Comparison(f"{kind}, {count} each way", cores.kind, cores, figures)
                    for base, target in _TARGETS.items():
                        compared.compare(_CAPMARSHAL, base, target)
                    report.comparisons.append(compared)
    return report
