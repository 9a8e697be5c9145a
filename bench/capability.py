"""Passing a capability that the receiver already holds, against one that is new to it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import capmarshal as cm
from bench import places, serving
from bench.figures import Comparison, Report, interleave
from bench.keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.settings import Settings

TAKES = "20 s"
# A receiver holds at most 256 doors that came from one process.
_COUNT, _QUICK_COUNT, _BATCHES, _ROUNDS = 200, 5, 10, 15

_HELD, _NEW, _NEW_DOOR = "the receiver holds it", "new to it, of a known entrypoint", "new to it"
_TARGET = 0.8


class _Thing(cm.Interface):
    """What the capabilities are of; nobody calls it."""

    @cm.method
    def nothing(self) -> None:
        """Does nothing."""


class _ThingServer(_Thing):
    def nothing(self) -> None:
        """Does nothing."""


def _pass(keeper: Keeper, things: Sequence[cm.Capability], before: int) -> tuple[int, int]:
    """Nanoseconds for passing each of them once, and how many the receiver has then."""
    take = keeper.take
    has = before
    begin = time.perf_counter_ns()
    for thing in things:
        has = take(thing)
    return time.perf_counter_ns() - begin, has


def _measure(keeper: Keeper, things: Sequence[cm.Capability], held: Sequence[cm.Capability], batches: int) -> float:
    """Seconds for one, when the receiver holds ``held`` before; each batch ends with dropping all, untimed."""
    taken = 0
    for _ in range(batches):
        _, before = _pass(keeper, held, 0)
        nanoseconds, has = _pass(keeper, things, before)
        if has != len({*held, *things}):
            raise SystemExit("the receiver has not recognised what it holds")
        taken += nanoseconds
        keeper.drop()
    return taken / batches / len(things) / 1e9


def run(settings: Settings) -> Report:
    """Measures it at each place."""
    count, batches = (_QUICK_COUNT, 1) if settings.quick else (_COUNT, _BATCHES)
    report = Report(settings={"loops": count * batches})
    with contextlib.ExitStack() as stack:
        # Nobody serves them: a capability can be passed all the same.
        entrypoints = [cm.Entrypoint("thing") for _ in range(count)]
        for entrypoint in entrypoints:
            stack.callback(entrypoint.close)
        # An entrypoint holds its objects, and a capability is held by whoever passes it.
        first = [entrypoint.manage(_ThingServer()) for entrypoint in entrypoints]
        second = [entrypoint.manage(_ThingServer()) for entrypoint in entrypoints]
        keeper = stack.enter_context(serving.served("keeper")).cast(Keeper)
        for cores in places.places():
            serving.place(keeper, cores)
            figures = interleave(
                {
                    _HELD: lambda: _measure(keeper, first, first, batches),
                    _NEW: lambda: _measure(keeper, second, first, batches),
                    _NEW_DOOR: lambda: _measure(keeper, first, (), batches),
                },
                settings.rounds_or(_ROUNDS),
            )
            compared = Comparison("", cores.kind, cores, figures)
            compared.compare(_HELD, _NEW_DOOR, _TARGET)
            compared.compare(_HELD, _NEW)
            report.comparisons.append(compared)
    return report
