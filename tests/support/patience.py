"""How long a test waits for what must come, and how it waits for what no descriptor tells."""

from __future__ import annotations

import time

# Seconds; generous: reached only when something hangs.
PATIENCE = 30.0
# And how long a call has that is to begin, also where the machine is busy, and then to be late.
BEGINS = 0.5


def until(condition, seconds=PATIENCE):
    """What condition() gives once that is true; fails after a generous while."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{condition} did not become true in {seconds} s"
        time.sleep(0.002)  # a poll: between two looks at what no descriptor tells, and with the deadline above
    return value
