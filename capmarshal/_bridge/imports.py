"""What a bridge has imported by one link: objects of another machine, each a forwarder with a capability of this one's.

What the other has exported under one number is one forwarder.  Its capability is held for some time after it was
mentioned, so that whoever is given it twice is given the same; after that it is told of no more than that nobody has
it, and what is mentioned then has a capability anew.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias

from capmarshal import (
    ArgumentError,
    CallTimeout,
    Disconnected,
    Forwarder,
    ProtocolError,
    StaleCapability,
    TableFull,
    TooLarge,
    raises,
)
from capmarshal._bridge_link.link import LinkLost
from capmarshal._server.entrypoint import abandon
from capmarshal._typed.marks import AT_ONCE

from .doors import Doors, NoRoom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal import Capability, UntypedCall, UntypedResult, aio

    from .shares import Part

    Calling: TypeAlias = Callable[[int, UntypedCall], Awaitable[UntypedResult]]
    Released: TypeAlias = Callable[[int, int], None]

_logger = logging.getLogger("capmarshal")

# Capabilities that are held because they were mentioned lately: seconds, and how many.
HELD_FOR = 10.0
HELD_MOST = 1_000

# Of what has gone and was not held here, so many are remembered.
GONE_MOST = 1_000


# So many are ended before it is somebody else's turn.
_A_TURN = 100


class Import(Forwarder):
    """One of them.

    Attributes:
        link: any object that stands for the link.
        number: that the other calls it by.
        mentions: how often it was mentioned.
        grants: that are in force.
        held: its capability, as long as it is held here.
    """

    def __init__(self, link: object, number: int, calling: Calling) -> None:
        self.link = link
        self.number = number
        self.mentions = 0
        self.grants = 0
        self.held: Capability | None = None
        self._calling = calling

    # What calls may raise besides what goes on as it came.
    @raises(ArgumentError, CallTimeout, Disconnected, ProtocolError, StaleCapability, TableFull, TooLarge)
    async def forward(self, call: UntypedCall) -> UntypedResult:
        """Calls it."""
        return await self._calling(self.number, call)


setattr(Import, AT_ONCE, True)


class Imports:
    """All of one link."""

    def __init__(
        self,
        entrypoint: aio.Entrypoint,
        *,
        label: str,
        calling: Calling,
        released: Released,
        most: int,
        descriptors: Part,
    ) -> None:
        """None yet.

        Args:
            entrypoint: that serves them; borrowed.
            label: of their grants, unless another one is said: the other bridge's name.
            calling: what calls a number.
            released: what is told that a number is not held any more, and how often it had been mentioned.
            most: how many there may be.
            descriptors: that may be held for them; borrowed.
        """
        self._entrypoint = entrypoint
        self._doors = Doors(descriptors, label)
        self._label = label
        self._calling = calling
        self._released = released
        self._most = most
        self._by_number: dict[int, Import] = {}
        self._lost = False
        # What is gone before it was mentioned, and why: the last ones, since most of them never will be.
        self._gone_before: dict[int, str | None] = {}
        # Those that are held, the one that was mentioned longest ago first, and until when.
        self._held: dict[Import, float] = {}

    def mention(self, number: int, *, anew: str = "") -> Capability:
        """One that the other has mentioned, once more.

        Args:
            number: its.
            anew: by a grant of its own, which has that label, and is not held here: what its holder does to that
                touches no other.  Empty: by any.

        Raises:
            NoRoom: it would be one more than may be.
            TableFull: no room for its two descriptors.
            LinkLost: the other is lost.
        """
        if self._lost:
            raise LinkLost(f"{self._label} was lost before it had come")
        found = self._by_number.get(number)
        if found is None:
            if len(self._by_number) >= self._most:
                raise NoRoom(f"{self._most:,} objects of {self._label} are held here, which is as many as may be")
            found = Import(self, number, self._calling)
        granted = None if anew else found.held
        # Some holder may have shut its door: whoever is given it from here on has another one.
        if granted is None or granted.closed or granted.gone:
            granted = self._granted(found, anew or self._label)
        if number in self._gone_before:
            self._end(found, self._gone_before[number])
            return granted
        self._by_number[number] = found
        found.mentions += 1
        if not anew:
            self._hold(found, granted)
        return granted

    def _granted(self, one: Import, label: str) -> Capability:
        self._doors.take()
        try:
            granted = self._entrypoint.grant(one, label=label, unreachable=self._unreachable)
        except BaseException:
            self._doors.give_back()
            raise
        one.grants += 1
        return granted

    def number_of(self, thing: object) -> int | None:
        """The number of what is one of these; None of anything else."""
        return thing.number if isinstance(thing, Import) and thing.link is self else None

    def tick(self) -> None:
        """Lets go of those that have not been mentioned lately: to be called now and then."""
        now = asyncio.get_running_loop().time()
        while self._held and (len(self._held) > HELD_MOST or next(iter(self._held.values())) <= now):
            self._let_go(next(iter(self._held)))

    def gone(self, number: int, why: str | None) -> None:
        """The other says that it can't be called any more: it is revoked for that reason, or its server is gone."""
        found = self._by_number.pop(number, None)
        if found is not None:
            self._end(found, why)
            return
        # It was released, or what mentions it comes later.
        self._gone_before[number] = why
        if len(self._gone_before) > GONE_MOST:
            del self._gone_before[next(iter(self._gone_before))]

    def lose(self) -> None:
        """The other is lost, and so are all of these."""
        self._lost = True
        ending = list(self._by_number.values())
        self._by_number.clear()
        self._end_some(ending)

    def __len__(self) -> int:
        return len(self._by_number)

    def _hold(self, one: Import, granted: Capability) -> None:
        one.held = granted
        self._held.pop(one, None)
        self._held[one] = asyncio.get_running_loop().time() + HELD_FOR
        self.tick()

    def _let_go(self, one: Import) -> None:
        self._held.pop(one, None)
        one.held = None

    def _end_some(self, ending: list[Import]) -> None:
        """In turns: of very many, other links wait for none."""
        for one in ending[-_A_TURN:]:
            self._end(one, None)
        del ending[-_A_TURN:]
        if ending:
            asyncio.get_running_loop().call_soon(self._end_some, ending)

    def _end(self, one: Import, why: str | None) -> None:
        self._let_go(one)
        # Nobody is told any more that nobody can reach it.
        grants, one.grants = one.grants, 0
        self._doors.give_back(grants)
        if self._entrypoint.closed:
            return
        if why is None:
            abandon(self._entrypoint, one)
        else:
            self._entrypoint.revoke(one, why)

    def _unreachable(self, one: Import) -> None:
        if one.grants == 0:
            return
        one.grants -= 1
        self._doors.give_back()
        if one.grants == 0 and self._by_number.get(one.number) is one:
            del self._by_number[one.number]
            self._released(one.number, one.mentions)
