"""A typed call that adds two integers, against the same exchange in C and by hand; and an open file in, text back."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench import c_program, contenders
from bench.charts import bar_chart
from bench.measuring import Report, Work, adding, against, checked, often
from bench.processes import ONE_CORE, TWO_CORES, places
from bench.server import Works, by_hand, served

TAKES, ROUNDS = "40 s", 15

CAPMARSHAL = "capmarshal, typed call"
_KEPT, _POLLING, _FRESH = "C, kept channel", "C, kept channel, polling", "C, reply socketpair per call"
_BARE, _RPC = "sendmsg + msgspec by hand, bare", "sendmsg + msgspec by hand, as an RPC"
_FILE, _FILE_BY_HAND = "an open file in, 64 characters back", "send_fds + msgspec by hand, a file object made of it"
# Of the program in C; on one core, nobody polls.
_MODES = {
    ONE_CORE: {_KEPT: "kept", _FRESH: "fresh"},
    TWO_CORES: {_KEPT: "kept", _FRESH: "fresh", _POLLING: "polling"},
}
_TARGETS = {
    ONE_CORE: {_KEPT: 1.4, _FRESH: 0.7, _BARE: 0.95, _RPC: 0.95, _FILE_BY_HAND: 1.2},
    TWO_CORES: {_KEPT: 0.2, _POLLING: 1.6},
}


def deeds(works: Works) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """By kind of work and contender, what is done in Python; each until the next is asked for."""
    with by_hand(works, contenders.Add) as bare, by_hand(works, contenders.Rpc) as rpc:
        yield "", {CAPMARSHAL: adding(works.add), _BARE: adding(bare.add), _RPC: adding(rpc.add)}
    with by_hand(works, contenders.Describe) as other, Path(sys.executable).open("rb") as file:
        both = {CAPMARSHAL: works.describe, _FILE_BY_HAND: other.describe}
        yield _FILE, {who: checked(describe, (file,), contenders.TEXT) for who, describe in both.items()}


def run(report: Report) -> Iterator[Work]:
    calls = report.loops(5000, 20)
    report.settings |= zip(("call_bytes", "reply_bytes"), c_program.record_sizes(), strict=True)
    for cores in places():
        with served(cores) as works:
            for kind, by_name in deeds(works):
                timed = {who: partial(often, deed, calls) for who, deed in by_name.items()}
                for who, mode in _MODES[cores.kind].items() if not kind else ():
                    timed[who] = partial(c_program.call, mode, calls, cores)
                goals = against(CAPMARSHAL, timed, _TARGETS[cores.kind])
                yield Work(cores.named(kind), cores, timed, goals)
    adds = [work for work in report.works if not work.name.startswith(_FILE)]
    report.pictures["call.svg"] = bar_chart("A typed call, add(int, int)", adds)
