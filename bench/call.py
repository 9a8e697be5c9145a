"""A typed call that adds two integers, against the same exchange in C and by hand; and an open file in, text back."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench import contenders, in_c, processes, servers
from bench.charts import bar_chart
from bench.measuring import Report, Settings, Work, adding, against, checked, measure, often
from bench.places import ONE_CORE, TWO_CORES, Cores
from bench.servers import Works

TAKES = "40 s"
_CALLS, _QUICK_CALLS, _ROUNDS = 5000, 20, 15

CAPMARSHAL = "capmarshal, typed call"
_KEPT, _POLLING, _FRESH = "C, kept channel", "C, kept channel, polling", "C, reply socketpair per call"
_BARE, _RPC = "sendmsg + msgspec by hand, bare", "sendmsg + msgspec by hand, as an RPC"
_FILE, _FILE_BY_HAND = "an open file in, 64 characters back", "send_fds + msgspec by hand, a file object made of it"
# Of the program in C; on one core, nobody polls.
_MODES = {_KEPT: "kept", _FRESH: "fresh", _POLLING: "polling"}
_TARGETS = {
    _KEPT: {ONE_CORE: 1.4, TWO_CORES: 0.2},
    _POLLING: {TWO_CORES: 1.6},
    _FRESH: {ONE_CORE: 0.7},
    _BARE: {ONE_CORE: 0.95},
    _RPC: {ONE_CORE: 0.95},
    _FILE_BY_HAND: {ONE_CORE: 1.2},
}


def deeds(works: Works) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """By kind of work and contender, what is done in Python; each until the next is asked for."""
    with servers.by_hand(works, contenders.Add) as bare, servers.by_hand(works, contenders.Rpc) as rpc:
        yield "", {CAPMARSHAL: adding(works.add), _BARE: adding(bare.add), _RPC: adding(rpc.add)}
    with servers.by_hand(works, contenders.Describe) as other, Path(sys.executable).open("rb") as file:
        own = checked(works.describe, (file,), contenders.TEXT)
        yield _FILE, {CAPMARSHAL: own, _FILE_BY_HAND: checked(other.describe, (file,), contenders.TEXT)}


def run(settings: Settings) -> Report:
    """Measures it at each place."""
    calls = _QUICK_CALLS if settings.quick else _CALLS
    sizes = dict(zip(("call_bytes", "reply_bytes"), in_c.record_sizes(), strict=True))
    report = Report(settings={"loops": calls, **sizes})
    with in_c.compiled() as program, processes.served() as served:
        works = served.cast(Works)

        def at(cores: Cores) -> Iterator[Work]:
            servers.place(works, cores)
            for name, by_name in deeds(works):
                timed = {who: partial(often, deed, calls) for who, deed in by_name.items()}
                if not name:
                    modes = {who: mode for who, mode in _MODES.items() if who != _POLLING or cores.kind == TWO_CORES}
                    timed |= {who: partial(program.call, mode, calls, cores) for who, mode in modes.items()}
                yield Work(name, timed, against(CAPMARSHAL, timed, _TARGETS))

        report.comparisons = measure(at, settings.rounds_or(_ROUNDS))
    adds = [compared for compared in report.comparisons if not compared.work]
    report.pictures["call.svg"] = bar_chart("A typed call, add(int, int)", adds)
    return report
