"""The instructions of one call, client and server apart, as callgrind counts them: without a clock, whoever else runs.

They are those of the processes, not of the kernel.  Each of the two runs under a callgrind of its own, which begins a
new count whenever its process calls a function of the C library that nothing else here calls.  A work is done a few
times and many times: the difference, divided, is that of one call, and what is needed once is not in it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import calls, usage
from bench.processes import line_of, running
from bench.servers import Works, served

_INSTALL = "--count needs valgrind (Debian, Ubuntu: apt install valgrind; Fedora: dnf install valgrind)"
# usage.mark() calls it.
_MARK = "getloadavg"
# By benchmark, what is counted of it.
_COUNTED = {"call": (calls.call_deeds, calls.capability_deeds), "descriptors": (calls.swap_deeds,)}
# Calls: not counted, a few, many.
_CALLS = {"usual": (20, 20, 120), "quick": (1, 1, 3)}

# By kind of work and contender, instructions of one call: client, server, both.
Counts = Mapping[str, Mapping[str, Sequence[float]]]


def _under_callgrind(directory: str, name: str) -> list[str]:
    """What comes before a command, for its counts to be written there."""
    out = str(Path(directory, name))
    return ["valgrind", "-q", "--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={out}"]


def _totals(directory: str, name: str) -> list[int]:
    """What was counted from mark to mark."""
    found: list[int] = []
    while (file := Path(directory, f"{name}.{len(found) + 1}")).exists():
        lines = file.read_text().splitlines()
        found.append(next(int(line.split()[1]) for line in lines if line.startswith("totals:")))
    return found


def count(names: Sequence[str], *, quick: bool) -> Counts:
    """Of the benchmarks of these names."""
    counted = [name for name in names if name in _COUNTED]
    if not counted:
        raise SystemExit(f"--count: instructions are counted of {' and '.join(_COUNTED)} only")
    if shutil.which("valgrind") is None:
        raise SystemExit(_INSTALL)
    # So that two runs count the same: neither the order of sets nor who is woken first is left to chance.
    environment = os.environ | {"PYTHONHASHSEED": "0", "CAPMARSHAL_POLL": "0"}
    with tempfile.TemporaryDirectory() as directory:
        under = _under_callgrind(directory, "client")
        speed = "quick" if quick else "usual"
        with running(counted_client, directory, speed, *counted, under=under, env=environment) as client:
            done = json.loads(line_of(client))
        sides = [_totals(directory, name) for name in ("client", "server")]
    found: dict[str, dict[str, Sequence[float]]] = {}
    for index, (kind, contender, few, many) in enumerate(done):
        once = [(side[3 * index + 2] - side[3 * index + 1]) / (many - few) for side in sides]
        found.setdefault(kind, {})[contender] = [*once, sum(once)]
    return found


def show(found: Counts) -> None:
    """A table of each kind of work: who, and then the first one as a multiple of the others."""
    print(f"\n{'instructions of one call, without the kernel':62}{'client':>10}{'server':>10}{'both':>10}")
    for kind, counts in found.items():
        print(f"\n{kind}")
        for contender, own in counts.items():
            print(f"  {contender:60}" + "".join(f"{figure:10,.0f}" for figure in own))
        (_, own), *others = counts.items()
        for contender, other in others:
            ratios = "".join(f"{a / b:10.2f}" for a, b in zip(own, other, strict=True))
            print(f"  {f'times {contender}':60}{ratios}")


def _do(deed: Callable[[], object], works: Works, calls: Sequence[int]) -> None:
    # By itself: in the middle of more, Python calls the same deed by 450 instructions more.
    for times in calls:
        for _ in range(times):
            deed()
        works.use("settle")
        works.use("mark")
        usage.mark()


def counted_client(directory: str, speed: str, *names: str) -> None:
    """Prints what it did, as JSON: kind of work, contender, and how often the second and the third time."""
    done = []
    times = _CALLS[speed]
    with served(under=_under_callgrind(directory, "server")) as works:
        for deeds in (deeds for name in names for deeds in _COUNTED[name]):
            for kind, by_name in deeds(works):
                for contender, deed in by_name.items():
                    _do(deed, works, times)
                    done.append((kind or "add(int, int)", contender, *times[1:]))
    print(json.dumps(done), flush=True)
