"""Passing a capability that the receiver already holds, against one that is new to it, and both against plain calls."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import capmarshal as cm
from bench.measuring import Goal, Report, Work, adding, often
from bench.processes import places
from bench.server import Thing, Works, served

TAKES, ROUNDS = "20 s", 15
# A receiver holds at most 256 doors that came from one process.
_COUNT, _QUICK_COUNT, _BATCHES = 200, 5, 10

CAPMARSHAL, DATA = "capmarshal", "a call of data, add(int, int)"
_HELD, _NEW, _NEW_DOOR = "the receiver holds it", "new to it, of a known entrypoint", "new to it"
_GOALS = (Goal(_HELD, _NEW_DOOR, 0.8), Goal(_HELD, _NEW), Goal(_HELD, DATA, 2.0), Goal(_NEW_DOOR, DATA, 3.0))


@contextlib.contextmanager
def _entrypoints(count: int) -> Iterator[list[cm.Entrypoint]]:
    """So many, which nobody serves: capabilities of theirs can be passed all the same."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(cm.Entrypoint("thing"))) for _ in range(count)]


def deeds(works: Works) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """A call with a capability that is held from the first one on, one that is new each time, and each beside data."""
    with _entrypoints(1 + _COUNT) as entrypoints:
        first, *things = (entrypoint.manage(Thing()) for entrypoint in entrypoints)
        keep, new = works.keep, iter(things)
        yield "a capability in, held already", {CAPMARSHAL: partial(keep, first), DATA: adding(works.add)}
        yield "a capability in, new to it", {CAPMARSHAL: lambda: keep(next(new)), DATA: adding(works.add)}
        works.drop()


def _measure(works: Works, things: Sequence[cm.Capability], held: Sequence[cm.Capability], batches: int) -> float:
    """Seconds for one, when the receiver holds ``held`` before; each batch ends with dropping all, untimed."""
    taken, keep = 0, works.keep
    for _ in range(batches):
        for thing in held:
            keep(thing)
        begin = time.perf_counter_ns()
        for thing in things:
            has = keep(thing)
        taken += time.perf_counter_ns() - begin
        if has != len({*held, *things}):
            raise SystemExit("the receiver has not recognised what it holds")
        works.drop()
    return taken / batches / len(things) / 1e9


def run(report: Report) -> Iterator[Work]:
    count, batches = (_QUICK_COUNT, 1) if report.quick else (_COUNT, _BATCHES)
    report.settings["loops"] = count * batches
    with _entrypoints(count) as entrypoints:
        # An entrypoint holds its objects, and a capability is held by whoever passes it.
        first, second = ([entrypoint.manage(Thing()) for entrypoint in entrypoints] for _ in range(2))
        for cores in places():
            with served(cores) as works:
                timed = {
                    _HELD: partial(_measure, works, first, first, batches),
                    _NEW: partial(_measure, works, second, first, batches),
                    _NEW_DOOR: partial(_measure, works, first, (), batches),
                    DATA: partial(often, adding(works.add), count * batches),
                }
                yield Work(cores.named(), cores, timed, _GOALS)
