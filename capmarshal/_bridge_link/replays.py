"""What comes a second time is refused: a body is genuine for whoever repeats it, too.

An exporter remembers what it has taken, until that has expired; what has expired is refused for that.  So a body is
taken once at most, and what has to be remembered is bounded: nothing may expire after the lease, and of what may not
yet, only so much is taken.  A lease is one start's: after another one, all that came before is of another lease.
"""

from __future__ import annotations

import heapq

from .sealing import LEASE_BYTES, Label, NotGenuine

# Of some 250 bytes each.
MOST = 100_000


class TooLate(NotGenuine):
    """A body was not taken, and never will be: it has expired, or is of a lease that has ended."""


class Once:
    """Which bodies have been taken within an exporter's lease; of times in nanoseconds of its own CLOCK_BOOTTIME."""

    def __init__(self, lease: bytes, ends: int, most: int = MOST) -> None:
        """A lease that has begun.

        Args:
            lease: which; random.
            ends: when, unless it is renewed.
            most: how many bodies are remembered.

        Raises:
            ValueError: a lease's ID is of another length.
        """
        if len(lease) != LEASE_BYTES:
            raise ValueError(f"a lease's ID has {LEASE_BYTES} bytes")
        self.lease = lease
        self._ends = ends
        self._most = most
        self._latest = 0
        self._taken: set[tuple[int, bytes, int]] = set()
        # The same by when they expire.
        self._expiring: list[tuple[int, tuple[int, bytes, int]]] = []

    def renew(self, ends: int) -> None:
        """The lease ends then, and not earlier than it would have: what was taken may last until that."""
        self._ends = max(self._ends, ends)

    def take(self, label: Label, now: int) -> None:
        """Takes a body that was opened, once; a body that is refused was not taken, and says nothing.

        Raises:
            TooLate: it is of another lease, or has expired.
            NotGenuine: it expires after the lease, or came before; or there are too many that have not expired yet.
        """
        # What was forgotten stays expired, whatever the clock says.
        now = self._latest = max(self._latest, now)
        if label.lease != self.lease:
            raise TooLate("a body of another lease: the exporter has been started again since, or is another one")
        if label.expires <= now:
            raise TooLate("a body came after it had expired")
        if label.expires > self._ends:
            raise NotGenuine("a body would expire after the exporter's lease")
        self._forget(now)
        key = (label.kind, label.call, label.part)
        if key in self._taken:
            raise NotGenuine("a body came a second time")
        if len(self._taken) >= self._most:
            raise NotGenuine(f"{self._most} bodies have come that may come again: no more of them are taken for now")
        self._taken.add(key)
        heapq.heappush(self._expiring, (label.expires, key))

    def bar(self, kind: int, call: bytes, now: int) -> bool:
        """Takes the only part of what has not come, so that it never will be taken; whether it had not come before.

        Raises:
            NotGenuine: there are too many that have not expired yet.
        """
        if (kind, call, 0) in self._taken:
            return False
        self.take(Label(kind, call, self.lease, expires=self._ends), now)
        return True

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._taken)

    def _forget(self, now: int) -> None:
        while self._expiring and self._expiring[0][0] <= now:
            self._taken.discard(heapq.heappop(self._expiring)[1])
