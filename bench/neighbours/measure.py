"""One load, with this interpreter's capmarshal: ``python -m bench.neighbours.measure LOAD SECONDS`` prints JSON.

This process is the honest client.  It and the server run on one core, the neighbour on the other, if there is one.
It calls twice as long as that beside the load: as any process, and in real time, so that it never waits for a core.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import capmarshal as cm
from bench import CHECKOUT, places, processes, servers
from bench.servers import Works

# Seconds: for one call of the honest client; for the neighbour to end.
_CALL, _PATIENCE = 10.0, 30.0
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


@contextlib.contextmanager
def _real_time() -> Iterator[bool]:
    """Whether this process could be given real-time priority, which it has as long as the block runs."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _main(load: str, seconds: float) -> None:
    here, other = places.places()[0], places.places()[-1]
    with processes.served("neighbours.server") as capability:
        shared = capability.cast(Works)
        servers.place(shared, here)
        gc.freeze()
        gc.disable()
        _call(shared, seconds / 10)
        alone, _ = _call(shared, seconds / 2)
        command = processes.command("neighbours.neighbour", load, str(other.server))
        pipe = subprocess.PIPE
        with cm.spawn(command, parent=capability, stdin=pipe, stdout=pipe, cwd=CHECKOUT) as process:
            try:
                # It has begun, or ended.
                next(iter(process.stdout or ()), None)
                beside, errors = _call(shared, seconds)
                with _real_time() as permitted:
                    at_once, _ = _call(shared, seconds) if permitted else ([], None)
                said = json.loads(process.communicate(timeout=_PATIENCE)[0].splitlines()[-1])
            finally:
                process.kill()
    print(json.dumps([alone, beside, at_once, errors, *said]))


if __name__ == "__main__":
    _main(sys.argv[1], float(sys.argv[2]))
