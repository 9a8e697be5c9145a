"""Memory of a channel, a managed object, a held capability, each at 1 to 10,000 of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from bench import crowding, serving
from bench.figures import Comparison, Report
from bench.hall import Hall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.settings import Settings

TAKES = "60 s"
_ROUNDS = 3
_COUNTS, _QUICK_COUNTS = (1, 100, 1000, 10_000), (100, 300)
# In one answer.
_HANDED_OUT = 500

_SERVER, _CLIENT, _HOLDER, _KERNEL = "server, resident", "client, resident", "holder, resident", "kernel"


def _channels(count: int) -> dict[str, float]:
    """Bytes for so many, of other processes."""
    with serving.served("hall") as capability:
        hall = capability.cast(Hall)
        # The first of whatever it needs once.
        with crowding.crowd(capability, hall, 1):
            pass
        hall.fill_up()
        resident = hall.resident()
        with crowding.crowd(capability, hall, count) as cost:
            return {_SERVER: hall.resident() - resident, _CLIENT: cost.clients, _KERNEL: cost.kernel}


def _objects(count: int) -> dict[str, float]:
    """Bytes for so many managed objects, which are empty themselves."""
    with serving.served("hall") as capability:
        hall = capability.cast(Hall)
        hall.manage(1)
        hall.fill_up()
        resident = hall.resident()
        hall.manage(count)
        return {_SERVER: hall.resident() - resident}


def _capabilities(count: int) -> dict[str, float]:
    """Bytes for so many that a process holds, of objects of one entrypoint of another process."""
    with serving.served("hall") as capability, serving.served("hall") as holder:
        hall, other = capability.cast(Hall), holder.cast(Hall)
        # The last one is handed over before: the door, and whatever is needed once, is not counted.
        hall.manage(count + 1)
        other.hold(hall.hand_out(count, 1))
        other.fill_up()
        resident = other.resident()
        for first in range(0, count, _HANDED_OUT):
            held = other.hold(hall.hand_out(first, min(_HANDED_OUT, count - first)))
        if held != count + 1:
            raise SystemExit("capabilities were lost")
        return {_HOLDER: other.resident() - resident}


_PIECES: dict[str, Callable[[int], dict[str, float]]] = {
    "channel": _channels,
    "managed object": _objects,
    "held capability": _capabilities,
}


def _measure(piece: str, counts: Sequence[int], rounds: int) -> list[Comparison]:
    """Bytes for one, by where they are and by how many there were."""
    found: dict[str, dict[str, list[float]]] = {}
    for _, count in itertools.product(range(rounds), counts):
        for where, cost in _PIECES[piece](count).items():
            found.setdefault(where, {}).setdefault(f"of {count:,}", []).append(cost / count)
    made = []
    for where, by_count in found.items():
        # Where there are few, a page more or less is all of it.
        unseen = [of for of, values in by_count.items() if min(values) <= 0]
        figures = {of: values for of, values in by_count.items() if of not in unseen}
        compared = Comparison(f"a {piece}", where, None, figures, unit="byte")
        compared.cannot = dict.fromkeys(unseen, "less than what can be seen beside all else")
        if len(figures) > 1:
            *_, fewer, most = figures
            compared.compare(most, fewer)
        made.append(compared)
    return made


def run(settings: Settings) -> Report:
    """Measures each at each count."""
    counts = _QUICK_COUNTS if settings.quick else _COUNTS
    room = crowding.room_for(max(counts))
    report = Report()
    for piece in _PIECES:
        own: Sequence[int] = counts
        if piece == "channel" and room < max(counts):
            own = sorted({min(count, room) for count in counts})
            report.notes.append(f"{max(counts):,} channels: the hard limit of open files (ulimit -Hn) leaves {room:,}")
        report.comparisons += _measure(piece, own, settings.rounds_or(_ROUNDS))
    return report
