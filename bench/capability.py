"""Passing a capability that the receiver already holds, against one that is new to it, and both against plain calls."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import capmarshal as cm
from bench import processes, servers
from bench.measuring import Goal, Report, Settings, Work, adding, everywhere, measure, often
from bench.places import Cores
from bench.servers import Thing, Works

TAKES = "20 s"
# A receiver holds at most 256 doors that came from one process.
_COUNT, _QUICK_COUNT, _BATCHES, _ROUNDS = 200, 5, 10, 15

CAPMARSHAL, DATA = "capmarshal", "a call of data, add(int, int)"
_HELD, _NEW, _NEW_DOOR = "the receiver holds it", "new to it, of a known entrypoint", "new to it"
_GOALS = (
    Goal(_HELD, _NEW_DOOR, everywhere(0.8)),
    Goal(_HELD, _NEW),
    Goal(_HELD, DATA, everywhere(2.0)),
    Goal(_NEW_DOOR, DATA, everywhere(3.0)),
)


def deeds(works: Works) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """A call with a capability that is held from the first one on, and one of data."""
    with contextlib.closing(cm.Entrypoint("thing")) as entrypoint:
        keep = partial(works.keep, entrypoint.manage(Thing()))
        yield "a capability in, held already", {CAPMARSHAL: keep, DATA: adding(works.add)}


def _pass(works: Works, things: Sequence[cm.Capability], before: int) -> tuple[int, int]:
    """Nanoseconds for passing each of them once, and how many the receiver has then."""
    keep = works.keep
    has = before
    begin = time.perf_counter_ns()
    for thing in things:
        has = keep(thing)
    return time.perf_counter_ns() - begin, has


def _measure(works: Works, things: Sequence[cm.Capability], held: Sequence[cm.Capability], batches: int) -> float:
    """Seconds for one, when the receiver holds ``held`` before; each batch ends with dropping all, untimed."""
    taken = 0
    for _ in range(batches):
        _, before = _pass(works, held, 0)
        nanoseconds, has = _pass(works, things, before)
        if has != len({*held, *things}):
            raise SystemExit("the receiver has not recognised what it holds")
        taken += nanoseconds
        works.drop()
    return taken / batches / len(things) / 1e9


def run(settings: Settings) -> Report:
    """Measures it at each place."""
    count, batches = (_QUICK_COUNT, 1) if settings.quick else (_COUNT, _BATCHES)
    with contextlib.ExitStack() as stack:
        # Nobody serves them: a capability can be passed all the same.
        entrypoints = [stack.enter_context(contextlib.closing(cm.Entrypoint("thing"))) for _ in range(count)]
        # An entrypoint holds its objects, and a capability is held by whoever passes it.
        first = [entrypoint.manage(Thing()) for entrypoint in entrypoints]
        second = [entrypoint.manage(Thing()) for entrypoint in entrypoints]
        works = stack.enter_context(processes.served()).cast(Works)
        timed = {
            _HELD: partial(_measure, works, first, first, batches),
            _NEW: partial(_measure, works, second, first, batches),
            _NEW_DOOR: partial(_measure, works, first, (), batches),
            DATA: partial(often, adding(works.add), count * batches),
        }

        def at(cores: Cores) -> Iterator[Work]:
            servers.place(works, cores)
            yield Work("", timed, _GOALS)

        return Report(measure(at, settings.rounds_or(_ROUNDS)), settings={"loops": count * batches})
