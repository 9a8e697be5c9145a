"""An event loop in which nobody waits: where nothing happens, its time leaps to when something is due.

So tests of leases of many seconds take none, and what happens in them depends on no machine's speed.  The clock of
bridges goes with it; what waits for another process, or has deadlines of the kernel's, has no place in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time

from capmarshal._bridge_link import clocks
from capmarshal._descriptors import reaper
from patience import PATIENCE


class _Selector(selectors.EpollSelector):
    """Waits for nothing but what other threads are about to do."""

    def __init__(self):
        super().__init__()
        self.leapt = 0.0

    def select(self, timeout=None):
        events = super().select(0)
        if events or timeout == 0:
            return events
        # What is being closed in another thread tells the loop of its end: time stands still until it has.
        reaper.wait(PATIENCE)
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            events = super().select(PATIENCE)
            assert events, "nothing will ever happen any more"
            return events
        self.leapt += max(timeout, 0)
        return []


class LeapingLoop(asyncio.SelectorEventLoop):
    """One of asyncio's."""

    def __init__(self):
        self._leaping = _Selector()
        super().__init__(self._leaping)
        self.slow_callback_duration = PATIENCE

    @property
    def leapt(self):
        """Seconds that it has leapt over: more, whenever nothing was left to do."""
        return self._leaping.leapt

    def time(self):
        """Seconds, of which all but some were leapt over."""
        return time.monotonic() + self._leaping.leapt


class _Time:
    """What bridges take the time from."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self, loop):
        self._loop = loop

    def clock_gettime_ns(self, _clock):
        return int(self._loop.time() * 1e9)


@contextlib.contextmanager
def runner():
    """Runs coroutines in such a loop, as asyncio.Runner does."""
    with asyncio.Runner(loop_factory=LeapingLoop) as made:
        before, clocks.time = clocks.time, _Time(made.get_loop())
        try:
            yield made
        finally:
            clocks.time = before
