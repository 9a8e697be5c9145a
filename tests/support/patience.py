"""How long a test waits for what must come, and how it waits for what no descriptor tells."""

from __future__ import annotations

import time

# Seconds; generous: reached only when something hangs.
PATIENCE = 30.0
# And how long a call has that is to begin, also where the machine is busy, and then to be late.
BEGINS = 0.5


def until(condition, seconds=PATIENCE):
    """What condition() gives once that is true; fails after a generous while."""
    begun = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - begun
        assert waited < seconds, f"{condition} did not become true in {seconds} s"
        # A poll of what no descriptor tells: the rarer the longer it takes, since others need the processor for that.
        time.sleep(min(max(waited / 20, 0.002), 0.05))
    return value
