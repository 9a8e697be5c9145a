"""A typed call that adds two integers, against the same exchange in C and against one written by hand."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from bench import by_hand, places, serving
from bench.adder import Adder, add_often
from bench.bars import bar_chart
from bench.figures import Comparison, Report, interleave
from bench.pingpong import FRESH, KEPT, POLLING, pingpong

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.pingpong import Pingpong
    from bench.places import Cores
    from bench.settings import Settings

TAKES = "40 s"
_CALLS, _QUICK_CALLS, _ROUNDS = 5000, 20, 15

CAPMARSHAL = "capmarshal, typed call"
BARE, RPC = "sendmsg + msgspec by hand, bare", "sendmsg + msgspec by hand, as an RPC"
# By place and contender: the most that capmarshal's call may be a multiple of.
_TARGETS = {
    "one core": {KEPT: 1.5, FRESH: 0.7, BARE: 0.95, RPC: 0.95},
    "two cores": {KEPT: 0.2, POLLING: 2.0},
}


def _contenders(
    adder: Adder, bare: by_hand.Add, rpc: by_hand.Rpc, program: Pingpong, calls: int, cores: Cores
) -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float]] = {
        CAPMARSHAL: partial(add_often, adder.add, calls),
        KEPT: partial(program.run, "kept", calls, cores),
        FRESH: partial(program.run, "fresh", calls, cores),
        BARE: partial(add_often, bare.add, calls),
        RPC: partial(add_often, rpc.add, calls),
    }
    if cores.client != cores.server:
        found[POLLING] = partial(program.run, "polling", calls, cores)
    return found


def run(settings: Settings) -> Report:
    """Measures it at each place."""
    calls = _QUICK_CALLS if settings.quick else _CALLS
    report = Report()
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(pingpong())
        adder = stack.enter_context(serving.served("adder")).cast(Adder)
        bare = by_hand.Add(stack.enter_context(serving.served_by_hand(adder, "add")))
        rpc = by_hand.Rpc(stack.enter_context(serving.served_by_hand(adder, "rpc")))
        for cores in places.places():
            serving.place(adder, cores)
            contenders = _contenders(adder, bare, rpc, program, calls, cores)
            figures = interleave(contenders, settings.rounds_or(_ROUNDS))
            compared = Comparison("", cores.kind, cores, figures)
            for base in list(contenders)[1:]:
                compared.compare(CAPMARSHAL, base, _TARGETS[cores.kind].get(base))
            report.comparisons.append(compared)
        report.settings = {"loops": calls, "call_bytes": program.sizes[0], "reply_bytes": program.sizes[1]}
    if len(report.comparisons) == 1:
        report.notes.append("two cores: skipped, since this process may use only one")
    report.pictures["call.svg"] = bar_chart("A typed call, add(int, int)", report.comparisons)
    return report
