"""A call with 1, 16 and 253 descriptors each way, against socket.send_fds and C, all with the closing."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import capmarshal as cm
from bench import c_program, contenders
from bench.contenders import DESCRIPTORS_MAX, close_all
from bench.measuring import Report, Work, against, often
from bench.processes import places
from bench.server import Works, by_hand, served

T = TypeVar("T")
TAKES, ROUNDS = "80 s", 15
_DESCRIPTORS, _QUICK_DESCRIPTORS = 30_000, 300
_CALLS_MAX, _CALLS_MIN = 3000, 2

CAPMARSHAL, _SEND_FDS, _C = "capmarshal", "socket.send_fds, recv_fds", "C"
# The mode of the program in C, how many, and the most that capmarshal may be a multiple of send_fds.
_WORKS = {
    "memfds, 1 each way": ("memfds", 1, 1.3),
    "memfds, 16 each way": ("memfds", 16, 1.3),
    "memfds, 253 each way": ("memfds", DESCRIPTORS_MAX, 1.5),
    "regular files, 1 each way": ("files", 1, 1.4),
    "regular files, 16 each way": ("files", 16, 1.4),
    "regular files, 253 each way": ("files", DESCRIPTORS_MAX, 1.7),
}
_TARGET_OF_C = 1.2


def _open(mode: str) -> int:
    return os.memfd_create("bench") if mode == "memfds" else os.open(sys.executable, os.O_RDONLY)


def _swap(swap: Callable[[list[T]], Sequence[T]], files: list[T], close: Callable[[T], object]) -> None:
    came = swap(files)
    if len(came) != len(files):
        raise SystemExit("files were lost")
    for file in came:
        close(file)


def _check(sent: list[int], came: list[int]) -> None:
    """Closes what came."""
    if [os.fstat(number).st_ino for number in sent] != [os.fstat(number).st_ino for number in came]:
        raise SystemExit("other files came back than were sent")
    close_all(came)


def deeds(works: Works) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """By kind of work and contender, what is done in Python; each until the next is asked for."""
    with by_hand(works, contenders.Swap) as other:
        for kind, (mode, count, _) in _WORKS.items():
            files = [cm.Descriptor(_open(mode)) for _ in range(count)]
            numbers = [file.fileno() for file in files]
            _check(numbers, [file.detach() for file in works.swap(files)])
            _check(numbers, other.swap(numbers))
            own = partial(_swap, works.swap, files, cm.Descriptor.close)
            yield kind, {CAPMARSHAL: own, _SEND_FDS: partial(_swap, other.swap, numbers, os.close)}
            for file in files:
                file.close()


def run(report: Report) -> Iterator[Work]:
    enough = _QUICK_DESCRIPTORS if report.quick else _DESCRIPTORS
    for cores in places():
        with served(cores) as works:
            # What the server leaves to others to close is waited for.
            settle = {CAPMARSHAL: partial(works.use, "settle")}
            for kind, by_name in deeds(works):
                mode, count, target = _WORKS[kind]
                calls = max(min(enough // count, _CALLS_MAX), _CALLS_MIN)
                timed = {who: partial(often, deed, calls, settle.get(who)) for who, deed in by_name.items()}
                timed[_C] = partial(c_program.call, mode, calls, cores, count)
                goals = against(CAPMARSHAL, timed, {_SEND_FDS: target, _C: _TARGET_OF_C})
                yield Work(cores.named(kind), cores, timed, goals)
