"""Calls through one door of this machine's: so many at a time, and of whom.

This process makes :data:`CALLS_MAX` calls at a time through a door, for all other bridges.  Of these each bridge may
have as many as all have left free, and so leaves some for whoever comes next; and one of its clients twice as many as
that bridge has left.  Whoever wants more waits, and keeps nobody waiting but itself.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._async_client.calling import CALLS_MAX

if TYPE_CHECKING:
    # Who waits, by which of its clients: each is told when it has a place.
    _Lines: TypeAlias = dict[int, deque[asyncio.Future[None]]]

# So many services are connected to at a time.
_OPENINGS = 64

# One client may have so many times what it leaves free of what its bridge may have: alone, 40 of 50.
OF_A_CLIENT = 2


class Turns:
    """Of one door.  A bridge is any object, and a client any number that it has given it."""

    def __init__(self, most: int = CALLS_MAX) -> None:
        """Nobody calls."""
        self._free = most
        # How many each has that has any: plain numbers, for each call changes them.
        self._of_bridge: dict[object, int] = {}
        self._of_client: dict[tuple[object, int], int] = {}
        # Both in the order in which it is their turn.
        self._waiting: dict[object, _Lines] = {}

    def take_now(self, bridge: object, client: int) -> bool:
        """Takes a place, if it may have one more now, and no call of the same client's waits; whether."""
        lines = self._waiting.get(bridge)
        return (lines is None or client not in lines) and self._take(bridge, client)

    async def take(self, bridge: object, client: int, seconds: float | None) -> bool:
        """Takes a place as soon as it may have one more; False if that is not so within so many seconds."""
        if self.take_now(bridge, client):
            return True
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(bridge, {}).setdefault(client, deque()).append(given)
        try:
            await asyncio.wait([given], timeout=seconds)
        except BaseException:
            if given.done():
                # Cancelled, and given one at the same time.
                self.give_back(bridge, client)
            raise
        finally:
            if not given.done():
                self._leave(bridge, client, given)
        return given.done()

    def give_back(self, bridge: object, client: int) -> None:
        """A call has ended; who waits may have its place."""
        self._free += 1
        key = bridge, client
        if (left := self._of_client[key] - 1) > 0:
            self._of_client[key] = left
        else:
            del self._of_client[key]
        if (left := self._of_bridge[bridge] - 1) > 0:
            self._of_bridge[bridge] = left
        else:
            del self._of_bridge[bridge]
        while self._waiting and any(map(self._deal, tuple(self._waiting))):
            pass

    def __len__(self) -> int:
        """Of whom something is known."""
        return len(self._of_client) + len(self._of_bridge) + len(self._waiting)

    def _take(self, bridge: object, client: int) -> bool:
        key, has, held = (bridge, client), self._of_bridge.get(bridge, 0), 0
        if has:
            held = self._of_client.get(key, 0)
        room = self._free - has
        if room < 1 or held >= OF_A_CLIENT * room:
            return False
        self._free -= 1
        self._of_bridge[bridge] = has + 1
        self._of_client[key] = held + 1
        return True

    def _deal(self, bridge: object) -> bool:
        """Gives a place to one of its clients that waits, if any may have one more; whether."""
        lines = self._waiting[bridge]
        if self._free - self._of_bridge.get(bridge, 0) < 1:
            return False
        for client in tuple(lines):
            if self._take(bridge, client):
                line = lines.pop(client)
                given = line.popleft()
                # Behind all others.
                if line:
                    lines[client] = line
                del self._waiting[bridge]
                if lines:
                    self._waiting[bridge] = lines
                given.set_result(None)
                return True
        return False

    def _leave(self, bridge: object, client: int, given: asyncio.Future[None]) -> None:
        lines = self._waiting[bridge]
        lines[client].remove(given)
        if not lines[client]:
            del lines[client]
            if not lines:
                del self._waiting[bridge]


class Doors:
    """Those that others call through.

    Attributes:
        openings: of finding what a token stands for, which may be a service that is to be connected to.
    """

    def __init__(self) -> None:
        """None yet."""
        self.openings = Turns(_OPENINGS)
        self._turns: weakref.WeakValueDictionary[int, Turns] = weakref.WeakValueDictionary()

    def turns(self, door: int) -> Turns:
        """Of the one with that key: the same for all who hold it."""
        found = self._turns.get(door)
        if found is None:
            found = self._turns[door] = Turns()
        return found
