"""The client of which callgrind counts the instructions: ``python -m bench.counted DIRECTORY quick|usual NAME...``.

Its standard output is a list of what it did, in JSON: kind of work, contender, and how often the second and third time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import capmarshal as cm
from bench import by_hand, counting, serving
from bench.descriptors import COUNTS, KINDS, opened
from bench.servers import Works

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Calls: not counted, a few, many; and of calls with many descriptors.
_CALLS, _LARGE_CALLS, _QUICK_CALLS = (50, 50, 550), (10, 10, 60), (1, 1, 3)

_CAPMARSHAL = counting.CAPMARSHAL
_SENDMSG, _SEND_FDS, _BARE = "sendmsg + msgspec by hand", "send_fds + msgspec by hand", "socket.send_fds, recv_fds"


class _Work(NamedTuple):
    """One way of doing a kind of work.

    Attributes:
        kind: of work.
        contender: who does it.
        call: does it once.
        calls: how often it is done, three times in a row.
    """

    kind: str
    contender: str
    call: Callable[[], object]
    calls: Sequence[int] = _CALLS


class _Thing(cm.Interface):
    """What the capability is of; nobody calls it."""


def _calls(stack: contextlib.ExitStack, works: Works) -> Iterator[_Work]:
    add = by_hand.Add(stack.enter_context(serving.served_by_hand(works, "add"))).add
    describe = by_hand.Describe(stack.enter_context(serving.served_by_hand(works, "describe"))).describe
    thing = stack.enter_context(contextlib.closing(cm.Entrypoint("thing"))).manage(_Thing())
    adding, describing, taking = "add(int, int)", "an open file in, 64 characters back", "a capability in, held already"
    yield _Work(adding, _CAPMARSHAL, lambda: works.add(1, 2))
    yield _Work(adding, _SENDMSG, lambda: add(1, 2))
    with Path(sys.executable).open("rb") as file:
        yield _Work(describing, _CAPMARSHAL, lambda: works.describe(file))
        yield _Work(describing, _SEND_FDS, lambda: describe(file))
    yield _Work(taking, _CAPMARSHAL, lambda: works.take(thing))
    yield _Work(taking, adding, lambda: works.add(1, 2))


def _swap(works: Works, files: list[cm.Descriptor]) -> None:
    for file in works.swap(files):
        file.close()


def _swap_by_hand(other: by_hand.Swap, numbers: list[int]) -> None:
    for number in other.swap(numbers):
        os.close(number)


def _descriptors(stack: contextlib.ExitStack, works: Works) -> Iterator[_Work]:
    other = by_hand.Swap(stack.enter_context(serving.served_by_hand(works, "swap")))
    for kind, make in KINDS.values():
        for count in COUNTS:
            numbers = stack.enter_context(opened(make, count))
            files = [cm.Descriptor(os.dup(number)) for number in numbers]
            calls = _CALLS if count == 1 else _LARGE_CALLS
            yield _Work(f"{kind}, {count} each way", _CAPMARSHAL, partial(_swap, works, files), calls)
            yield _Work(f"{kind}, {count} each way", _BARE, partial(_swap_by_hand, other, numbers), calls)


def _do(work: _Work, works: Works, calls: Sequence[int]) -> None:
    for times in calls:
        for _ in range(times):
            work.call()
        # Both processes begin a new count here.
        works.settle()
        works.mark()
        counting.mark()


def _main(directory: str, speed: str, names: Sequence[str]) -> None:
    done = []
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serving.served("servers", counting.under_callgrind(directory, "server")))
        works = served.cast(Works)
        for name in names:
            for work in {"call": _calls, "descriptors": _descriptors}[name](stack, works):
                calls = _QUICK_CALLS if speed == "quick" else work.calls
                _do(work, works, calls)
                done.append((work.kind, work.contender, *calls[1:]))
    print(json.dumps(done))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3:])
