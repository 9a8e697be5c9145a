"""Times of another machine: until when what is sent there may be taken.

Whoever answers says what its clock shows, which counts on while it stands still (CLOCK_BOOTTIME).  What is sent there
later says until when it means anything, by that clock, and it is refused on arrival after that.
"""

from __future__ import annotations

import time

from .sealing import NotGenuine

# Seconds for which what two bridges have in common stays when they do not hear of each other; and nothing is valid for
# longer than that.  Looked up here alone, when it is needed: a test may have shorter ones.
LEASE = 10.0

_NANOSECONDS = 1_000_000_000

# No machine's clock shows more, which is 73 years: what is to be said of times still finds room beyond it.
_LATEST = 1 << 61


def now() -> int:
    """Nanoseconds of this machine's clock: it counts while it stands still, too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def nanoseconds(seconds: float) -> int:
    """Of so many seconds."""
    return int(seconds * _NANOSECONDS)


def lease_from(begun: int) -> int:
    """When a lease ends that has begun then, or was renewed."""
    return begun + nanoseconds(LEASE)


class TheirClock:
    """Another machine's.

    It is taken for slower than it is by as long as its answer took: what is sent expires too early, and never late.

    Attributes:
        heard: when it was heard of last, by the own clock.
    """

    def __init__(self, shown: int) -> None:
        """What it showed just now; raises as :meth:`show`."""
        self.show(shown)

    def show(self, shown: int) -> None:
        """What it shows now.

        Raises:
            NotGenuine: no clock shows that.
        """
        if not 0 <= shown <= _LATEST:
            raise NotGenuine("a clock that shows what no clock shows")
        self.heard = now()
        self._ahead = shown - self.heard

    @property
    def left(self) -> float:
        """Seconds until it is lost, unless it is heard of."""
        return (lease_from(self.heard) - now()) / _NANOSECONDS

    def expiry(self, within: float) -> int:
        """Until when what is sent now may be taken there: so many seconds, and no longer than the lease."""
        return self._ahead + min(now() + nanoseconds(within), lease_from(self.heard))

    def at(self, seconds: float) -> int:
        """What it will show in so many seconds."""
        return self._ahead + now() + nanoseconds(seconds)
