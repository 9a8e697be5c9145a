"""A call with 1, 16 and 253 descriptors each way, against socket.send_fds and C, all with the closing."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import capmarshal as cm
from bench import contenders, in_c, processes, servers
from bench.contenders import DESCRIPTORS_MAX, close_all
from bench.measuring import Report, Settings, Work, against, everywhere, measure, often
from bench.places import Cores
from bench.servers import Works

TAKES = "80 s"
_DESCRIPTORS, _QUICK_DESCRIPTORS, _ROUNDS = 30_000, 300, 15
_CALLS_MAX, _CALLS_MIN = 3000, 2

CAPMARSHAL, _SEND_FDS, _C = "capmarshal", "socket.send_fds, recv_fds", "C"


class _Files(NamedTuple):
    """What is handed over.

    Attributes:
        mode: of the program in C.
        number: how many.
        target: the most that capmarshal may be a multiple of send_fds.
    """

    mode: str
    number: int
    target: float


_WORKS = {
    "memfds, 1 each way": _Files("memfds", 1, 1.3),
    "memfds, 16 each way": _Files("memfds", 16, 1.3),
    "memfds, 253 each way": _Files("memfds", DESCRIPTORS_MAX, 1.5),
    "regular files, 1 each way": _Files("files", 1, 1.4),
    "regular files, 16 each way": _Files("files", 16, 1.4),
    "regular files, 253 each way": _Files("files", DESCRIPTORS_MAX, 1.7),
}
_TARGET_OF_C = everywhere(1.2)


def _open(mode: str) -> cm.Descriptor:
    if mode == "memfds":
        return cm.Descriptor(os.memfd_create("bench", os.MFD_CLOEXEC))
    return cm.Descriptor(os.open(sys.executable, os.O_RDONLY | os.O_CLOEXEC))


def _swap(works: Works, files: list[cm.Descriptor]) -> None:
    came = works.swap(files)
    if len(came) != len(files):
        raise SystemExit("files were lost")
    for file in came:
        file.close()


def _swap_by_hand(other: contenders.Swap, numbers: list[int]) -> None:
    came = other.swap(numbers)
    if len(came) != len(numbers):
        raise SystemExit("files were lost")
    close_all(came)


def _check(sent: list[int], came: list[int]) -> None:
    """Closes what came."""
    if [os.fstat(number).st_ino for number in sent] != [os.fstat(number).st_ino for number in came]:
        raise SystemExit("other files came back than were sent")
    close_all(came)


def deeds(works: Works) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """By kind of work and contender, what is done in Python; each until the next is asked for."""
    with servers.by_hand(works, contenders.Swap) as other:
        for name, (mode, count, _) in _WORKS.items():
            with contextlib.ExitStack() as opened:
                files = [opened.enter_context(_open(mode)) for _ in range(count)]
                numbers = [file.fileno() for file in files]
                _check(numbers, [file.detach() for file in works.swap(files)])
                _check(numbers, other.swap(numbers))
                own, by_hand = partial(_swap, works, files), partial(_swap_by_hand, other, numbers)
                yield name, {CAPMARSHAL: own, _SEND_FDS: by_hand}


def run(settings: Settings) -> Report:
    """Measures each count of each kind at each place."""
    enough = _QUICK_DESCRIPTORS if settings.quick else _DESCRIPTORS
    with in_c.compiled() as program, processes.served() as served:
        works = served.cast(Works)

        def at(cores: Cores) -> Iterator[Work]:
            servers.place(works, cores)
            for name, by_name in deeds(works):
                mode, count, target = _WORKS[name]
                calls = max(min(enough // count, _CALLS_MAX), _CALLS_MIN)
                timed = {
                    # What the server leaves to others to close is waited for.
                    CAPMARSHAL: partial(often, by_name[CAPMARSHAL], calls, works.settle),
                    _SEND_FDS: partial(often, by_name[_SEND_FDS], calls),
                    _C: partial(program.call, mode, calls, cores, count),
                }
                targets = {_SEND_FDS: everywhere(target), _C: _TARGET_OF_C}
                yield Work(name, timed, against(CAPMARSHAL, timed, targets))

        return Report(measure(at, settings.rounds_or(_ROUNDS)))
