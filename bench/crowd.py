"""A call to a server with 1,000 idle channels and 10,000 managed objects, against one with 1 and 1."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from bench import crowding, places, serving
from bench.adder import add_often
from bench.figures import Comparison, Report, interleave
from bench.hall import Hall

if TYPE_CHECKING:
    from bench.settings import Settings

TAKES = "15 s"
_CALLS, _QUICK_CALLS, _ROUNDS = 5000, 20, 15
_CHANNELS, _QUICK_CHANNELS = 1000, 20
_OBJECTS, _QUICK_OBJECTS = 10_000, 50
_TARGET = 1.3


def run(settings: Settings) -> Report:
    """Measures it at each place."""
    calls, wanted, objects = (
        (_QUICK_CALLS, _QUICK_CHANNELS, _QUICK_OBJECTS) if settings.quick else (_CALLS, _CHANNELS, _OBJECTS)
    )
    channels = crowding.room_for(wanted)
    report = Report(settings={"loops": calls, "channels": channels, "objects": objects})
    if channels < wanted:
        report.notes.append(f"{wanted:,} channels: the hard limit of open files (ulimit -Hn) leaves {channels:,}")
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(serving.served("hall")).cast(Hall)
        capability = stack.enter_context(serving.served("hall"))
        crowded = capability.cast(Hall)
        crowded.manage(objects)
        stack.enter_context(crowding.crowd(capability, crowded, channels))
        busy = f"{channels:,} idle channels, {objects:,} objects"
        for cores in places.places():
            for hall in (alone, crowded):
                serving.place(hall, cores)
            contenders = {
                busy: partial(add_often, crowded.add, calls),
                "1 channel, 1 object": partial(add_often, alone.add, calls),
            }
            compared = Comparison("", cores.kind, cores, interleave(contenders, settings.rounds_or(_ROUNDS)))
            compared.compare(busy, "1 channel, 1 object", _TARGET)
            report.comparisons.append(compared)
    return report
