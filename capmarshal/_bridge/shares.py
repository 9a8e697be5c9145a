"""How bridges share what one machine has of something: each may have as much as all of them have left free.

So one alone has half of it at most, two have a third each, and whoever comes then finds some, too: nobody has to be
told how many there will be.  (Choudhury and Hahne: dynamic queue length thresholds for shared-memory packet switches,
1998.)  Links share likewise what one other bridge may have.

Who counts as one is known by what can't be made up: by the token that it has joined with, under however many names and
by however many links; or, of those that this bridge has joined, by the name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .limits import ENDED_MOST

if TYPE_CHECKING:
    from .limits import LinkLimits

# So many links may have all that one link may have of bytes, and of exports.
_ALL_OF_IT = 3


def no_more_descriptors(held: int, other: str = "that bridge") -> str:
    """Why one may not have one more than so many, for people."""
    return f"{held:,} descriptors are held here for {other}, and others have, or may need, the rest"


class Pool:
    """So many of something."""

    def __init__(self, most: int) -> None:
        """All of them are free."""
        self.free = most


class Share:
    """What one has of a pool."""

    def __init__(self, pool: Pool) -> None:
        """Nothing yet."""
        self._pool = pool
        self.held = 0

    @property
    def room(self) -> int:
        """How many more one may have."""
        return self._pool.free - self.held

    def take(self, count: int = 1) -> bool:
        """Takes so many more, if one may have them; whether."""
        if count > self.room:
            return False
        self.have(count)
        return True

    def have(self, count: int) -> None:
        """Has so many more, of which it is known that it may."""
        self.held += count
        self._pool.free -= count

    def give_back(self, count: int = 1) -> None:
        """Does not have so many any more."""
        self.held -= count
        self._pool.free += count


class Part:
    """What one link has of a share."""

    def __init__(self, share: Share) -> None:
        """Nothing yet."""
        self._share = share
        self.held = 0

    def has_room(self, count: int = 1) -> bool:
        """Whether it may have so many more."""
        return self.held + count <= self._share.room

    def take(self, count: int = 1) -> bool:
        """Takes so many more, if it may have them; whether."""
        if not self.has_room(count):
            return False
        self._share.have(count)
        self.held += count
        return True

    def give_back(self, count: int = 1) -> None:
        """Does not have so many any more."""
        self.held -= count
        self._share.give_back(count)


class Pools:
    """All that bridges share here."""

    def __init__(self, limits: LinkLimits, links: int) -> None:
        """Nobody has anything."""
        self.links = Pool(links)
        self.descriptors = Pool(limits.descriptors)
        self.exports = Pool(_ALL_OF_IT * limits.exports)
        self.calls = Pool(_ALL_OF_IT * (limits.calls + ENDED_MOST))
        self.copying = Pool(_ALL_OF_IT * limits.dataspace)
        self.came = Pool(_ALL_OF_IT * limits.bytes_at_a_time)
        self.kept = Pool(_ALL_OF_IT * limits.bytes_at_a_time)


class Shares:
    """What one other bridge has here, by all its links.

    Attributes:
        links: that it has made.
        descriptors: that are held for it.
        exports: that it was told of.
        calls: that it has made, and of whose end it has not heard.
        copying: bytes of dataspaces.
        came: bytes of results that it has sent.
        kept: bytes of its arguments, and of results that wait for it.
    """

    def __init__(self, pools: Pools) -> None:
        """Nothing yet."""
        self.links = Share(pools.links)
        self.descriptors = Share(pools.descriptors)
        self.exports = Share(pools.exports)
        self.calls = Share(pools.calls)
        self.copying = Share(pools.copying)
        self.came = Share(pools.came)
        self.kept = Share(pools.kept)
        # Doors of this machine that it was told of, and how often: each is one descriptor, by whichever link.
        self._doors: dict[int, int] = {}
        self._of_doors = Part(self.descriptors)

    def take_door(self, key: int) -> bool:
        """It is told of something behind a door; whether it may have one more, if this is one."""
        if key not in self._doors and not self._of_doors.take():
            return False
        self._doors[key] = self._doors.get(key, 0) + 1
        return True

    def give_back_door(self, key: int) -> None:
        """Once less."""
        self._doors[key] -= 1
        if not self._doors[key]:
            del self._doors[key]
            self._of_doors.give_back()
