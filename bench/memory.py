"""Memory of a channel, a managed object, a held capability, each at 1 to 10,000 of them."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

from bench.crowd import crowd, room_for
from bench.measuring import Goal, Report, Work
from bench.server import served

TAKES, ROUNDS = "60 s", 3
_COUNTS, _QUICK_COUNTS = (1, 100, 1000, 10_000), (100, 300)
# In one answer.
_HANDED_OUT = 500


def _channels(count: int) -> tuple[float, float, float]:
    """Bytes for so many, of other processes."""
    with served() as works:
        # The first of whatever it needs once.
        with crowd(works, 1):
            pass
        resident = works.use("fill_up")
        with crowd(works, count) as cost:
            return works.use("resident") - resident, cost.clients, cost.kernel


def _objects(count: int) -> tuple[float]:
    """Bytes for so many managed objects, which are empty themselves."""
    with served() as works:
        works.manage(1)
        resident = works.use("fill_up")
        works.manage(count)
        return (works.use("resident") - resident,)


def _capabilities(count: int) -> tuple[float]:
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


def _of_one(
    measure: Callable[[int], tuple[float, ...]], found: dict[int, list[list[float]]], which: int, count: int
) -> float:
    """Bytes for one of so many; what was measured in the same go is kept for the works to come."""
    if which == 0:
        found[count].append([cost / count for cost in measure(count)])
        return found[count][-1][0]
    # The rounds of each work come in the same order.
    found[count].append(costs := found[count].pop(0))
    return costs[which]


def run(report: Report) -> Iterator[Work]:
    """Each at each count."""
    counts = _QUICK_COUNTS if report.quick else _COUNTS
    room = room_for(max(counts), report)
    for piece, (measure, everywhere) in _PIECES.items():
        own = sorted({min(count, room) for count in counts}) if measure is _channels else counts
        found: dict[int, list[list[float]]] = defaultdict(list)
        for which, where in enumerate(everywhere):
            sizes = {f"of {count:,}": partial(_of_one, measure, found, which, count) for count in own}
            *_, fewer, most = sizes
            yield Work(f"{piece}, {where}", None, sizes, [Goal(most, fewer)], unit="byte")
