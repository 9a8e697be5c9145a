"""Memory of a channel, a managed object, a held capability, each at 1 to 10,000 of them."""

from collections.abc import Callable, Sequence

from bench import processes
from bench.crowd import crowd, room_for
from bench.measuring import Comparison, Report, Settings
from bench.servers import Works

TAKES = "60 s"
_ROUNDS = 3
_COUNTS, _QUICK_COUNTS = (1, 100, 1000, 10_000), (100, 300)
# In one answer.
_HANDED_OUT = 500

_SERVER, _CLIENT, _HOLDER, _KERNEL = "server, resident", "client, resident", "holder, resident", "kernel"


def _channels(count: int) -> dict[str, float]:
    """Bytes for so many, of other processes."""
    with processes.served() as served:
        works = served.cast(Works)
        # The first of whatever it needs once.
        with crowd(served, 1):
            pass
        resident = works.fill_up()
        with crowd(served, count) as cost:
            return {_SERVER: works.resident() - resident, _CLIENT: cost.clients, _KERNEL: cost.kernel}


def _objects(count: int) -> dict[str, float]:
    """Bytes for so many managed objects, which are empty themselves."""
    with processes.served() as served:
        works = served.cast(Works)
        works.manage(1)
        resident = works.fill_up()
        works.manage(count)
        return {_SERVER: works.resident() - resident}


def _capabilities(count: int) -> dict[str, float]:
    """Bytes for so many that a process holds, of objects of one entrypoint of another process."""
    with processes.served() as served, processes.served() as holder:
        works, other = served.cast(Works), holder.cast(Works)
        # The last one is handed over before: the door, and whatever is needed once, is not counted.
        works.manage(count + 1)
        other.keep(*works.hand_out(count, 1))
        resident = other.fill_up()
        for first in range(0, count, _HANDED_OUT):
            for thing in works.hand_out(first, min(_HANDED_OUT, count - first)):
                held = other.keep(thing)
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
    for _ in range(rounds):
        for count in counts:
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
    room = room_for(max(counts))
    report = Report()
    for piece in _PIECES:
        own: Sequence[int] = counts
        if piece == "channel" and room < max(counts):
            own = sorted({min(count, room) for count in counts})
            report.notes.append(f"{max(counts):,} channels: the hard limit of open files (ulimit -Hn) leaves {room:,}")
        report.comparisons += _measure(piece, own, settings.rounds_or(_ROUNDS))
    return report
