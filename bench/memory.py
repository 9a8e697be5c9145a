"""Memory of a channel, a managed object, a held capability, each at 1 to 10,000 of them."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

from bench.crowd import crowd, make_room
from bench.measuring import Goal, Report, Work
from bench.server import served

TAKES, ROUNDS = "60 s", 3
_COUNTS, _QUICK_COUNTS = (1, 100, 1000, 10_000), (100, 300)
# In one answer.
_HANDED_OUT = 500


def _channels(count: int) -> tuple[float, ...]:
    """Bytes for so many, of other processes."""
    with served() as works:
        # The first of whatever it needs once.
        with crowd(works, 1):
            pass
        resident = works.use("fill_up")
        with crowd(works, count) as (clients, kernel):
            return works.use("resident") - resident, clients, kernel


def _objects(count: int) -> tuple[float, ...]:
    """Bytes for so many managed objects, which are empty themselves."""
    with served() as works:
        works.manage(1)
        resident = works.use("fill_up")
        works.manage(count)
        return (works.use("resident") - resident,)


def _capabilities(count: int) -> tuple[float, ...]:
    """Bytes for so many that a process holds, of objects of one entrypoint of another process."""
    with served() as works, served() as holder:
        # The last one is handed over before: the door, and whatever is needed once, is not counted.
        works.manage(count + 1)
        holder.keep(*works.hand_out(count, 1))
        resident = holder.use("fill_up")
        for first in range(0, count, _HANDED_OUT):
            for thing in works.hand_out(first, min(_HANDED_OUT, count - first)):
                held = holder.keep(thing)
        if held != count + 1:
            raise SystemExit("capabilities were lost")
        return (holder.use("resident") - resident,)


# What is measured, and where: in one go.
_PIECES: dict[str, tuple[Callable[[int], tuple[float, ...]], list[str]]] = {
    "a channel": (_channels, ["server, resident", "client, resident", "kernel"]),
    "a managed object": (_objects, ["server, resident"]),
    "a held capability": (_capabilities, ["holder, resident"]),
}


# What was measured in one go, and is still to be shown: by which and how many, round by round.
_Waiting = defaultdict[tuple[int, int], list[float]]


def _of_one(measure: Callable[[int], tuple[float, ...]], waiting: _Waiting, which: int, count: int) -> float:
    """Bytes for one of so many; the rounds of each work come in the same order."""
    if not waiting[which, count]:
        for other, cost in enumerate(measure(count)):
            waiting[other, count].append(cost / count)
    return waiting[which, count].pop(0)


def run(report: Report) -> Iterator[Work]:
    counts = _QUICK_COUNTS if report.quick else _COUNTS
    make_room(max(counts))
    for piece, (measure, everywhere) in _PIECES.items():
        waiting = _Waiting(list)
        for which, where in enumerate(everywhere):
            sizes = {f"of {count:,}": partial(_of_one, measure, waiting, which, count) for count in counts}
            *_, fewer, most = sizes
            yield Work(f"{piece}, {where}", None, sizes, [Goal(most, fewer)], unit="byte")
