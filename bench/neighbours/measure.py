"""One load, with this interpreter's capmarshal: ``python -m bench.neighbours.measure LOAD SECONDS`` prints JSON.

This process is the honest client.  It and the server run on one core, the neighbour on the other, if there is one.
It calls twice as long as that beside the load: as any process, and in real time, so that it never waits for a core.
"""

import gc
import json
import os
import sys
import time
from collections import Counter

import capmarshal as cm
from bench import processes
from bench.server import Works, served

# Seconds for one call of the honest client.
_CALL = 10.0
# Of these is the 99th percentile something: it goes on up to four times as long to have as many.
_ENOUGH = 1000


def _call(shared: Works, seconds: float) -> tuple[list[int], Counter[str]]:
    """Calls again and again: how long each took, in ns, sorted; and errors, which count as calls."""
    times: list[int] = []
    errors = Counter[str]()
    clock = time.perf_counter_ns
    begin = now = clock()
    length = seconds * 1e9
    while now - begin < length or (len(times) < _ENOUGH and now - begin < 4 * length):
        try:
            with cm.timeout(_CALL):
                before = clock()
                if shared.add(1, 2) != 3:
                    raise SystemExit("a wrong result came")
        except cm.Error as error:
            errors[type(error).__name__] += 1
        now = clock()
        times.append(now - before)
    return sorted(times), errors


def _real_time() -> bool:
    """Whether this process could be given real-time priority, which it then has."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except PermissionError:
        return False
    return True


def percentile(times: list[int], part: float) -> float:
    """Of sorted ns, in seconds."""
    return times[min(int(len(times) * part), len(times) - 1)] / 1e9


def _main(load: str, seconds: float) -> None:
    here, *_, other = processes.places() * 2
    with served(here, "shared") as shared:
        gc.freeze()
        gc.disable()
        _call(shared, seconds / 10)
        alone, _ = _call(shared, seconds / 2)
        processes.run_on(other.server)
        with processes.running("neighbours.loads", load, parent=cm.capability(shared)) as neighbour:
            processes.run_on(here.client)
            # It has begun.
            processes.line_of(neighbour)
            beside, errors = _call(shared, seconds)
            at_once = percentile(_call(shared, seconds)[0], 0.99) if _real_time() else None
            said = json.loads(processes.line_of(neighbour, "over"))
    print(json.dumps([alone, [percentile(beside, part) for part in (0.5, 0.99, 1)], at_once, errors, *said]))


if __name__ == "__main__":
    _main(sys.argv[1], float(sys.argv[2]))
