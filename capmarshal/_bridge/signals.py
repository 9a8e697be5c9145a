"""Signals of another machine: each stands here for one that is sent there, once more whenever it was sent here.

What is sent while one is on its way is one more.  It is kept as long as anybody on this machine holds it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._bridge_link.link import LinkLost

from .doors import Doors, NoRoom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal import Signal, aio

    from .shares import Part

    Ringing: TypeAlias = Callable[[int], Awaitable[None]]
    Released: TypeAlias = Callable[[int, int], None]


class Signals:
    """Those that one link has brought."""

    def __init__(
        self, entrypoint: aio.Entrypoint, *, ringing: Ringing, released: Released, most: int, descriptors: Part
    ) -> None:
        """None yet.

        Args:
            entrypoint: that hears them; borrowed.
            ringing: what sends one to the other bridge, and returns when that has it, or is lost.
            released: what is told that nobody holds one any more.
            most: how many there may be.
            descriptors: that may be held for them; borrowed.
        """
        self._entrypoint = entrypoint
        self._ringing = ringing
        self._released = released
        self._most = most
        self._doors = Doors(descriptors, "that bridge")
        self._count = 0
        self._lost = False

    def mention(self, number: int) -> Signal:
        """One that the other has mentioned; each time another one.

        Raises:
            NoRoom: it would be one more than may be.
            TableFull: no room for its two descriptors.
            LinkLost: the other is lost.
        """
        if self._lost:
            raise LinkLost("the other bridge was lost before the signal had come")
        if self._count >= self._most:
            raise NoRoom(f"{self._most:,} signals of that bridge are held here, which is as many as may be")
        self._doors.take()
        relay = _Relay(self._ringing, number)
        try:
            made = self._entrypoint.on_signal(relay)
        except BaseException:
            self._doors.give_back()
            raise
        self._count += 1
        # The entrypoint alone has it, until nobody holds the signal.
        weakref.finalize(relay, self._forget, number).atexit = False
        return made

    def lose(self) -> None:
        """The other is lost: what is sent from here on reaches nobody."""
        self._lost = True

    def _forget(self, number: int) -> None:
        self._count -= 1
        self._doors.give_back()
        if not self._lost:
            self._released(number, 1)


class _Relay:
    """Rings one."""

    def __init__(self, ringing: Ringing, number: int) -> None:
        self._ringing = ringing
        self._number = number

    async def __call__(self) -> None:
        await self._ringing(self._number)
