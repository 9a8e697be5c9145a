"""What a bridge has exported by one link: numbers that the other calls by, and counts what it was told of.

The same thing has the same number, as long as the other has it.  How often it was mentioned is counted by both: one
that is released while it is on its way again stays.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from capmarshal import Capability, Disconnected, Error, Signal, capability
from capmarshal._async_client.forwarding import Onward
from capmarshal._capabilities.capability import open_door_of

from .shares import Part, no_more_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capmarshal import UntypedCall, UntypedResult

    from .shares import Shares
    from .turns import Doors, Turns

Thing: TypeAlias = Capability | Signal

_logger = logging.getLogger("capmarshal")

# So many are looked at each time whether they have gone.
_LOOKED_AT = 5_000


class TooMany(Exception):
    """There is no room for one more."""


class Root:
    """A token that others are reached by.

    Attributes:
        revoked: why it is, once it is.
    """

    revoked: str | None = None


@dataclass(eq=False)
class Export:
    """One of them.

    Attributes:
        thing: held until it is released.
        root: the token that it was reached by, if it was: what is called by a token is revoked with that.
        door: of what it is behind.
        turns: of the calls through that.
        mentions: how often the other was told of it.
    """

    number: int
    thing: Thing
    root: Root | None
    door: int
    turns: Turns
    mentions: int = 0
    _onward: Onward | None = None

    async def forward(self, call: UntypedCall) -> UntypedResult:
        """Passes a call on to it, which is a capability; see :func:`capmarshal.aio.forward`."""
        if self._onward is None:
            self._onward = Onward(self.thing)
        return await self._onward.forward(call)

    def ring(self) -> None:
        """Sends it, if it is a signal."""
        if isinstance(self.thing, Signal):
            try:
                self.thing.send()
            except Disconnected:
                pass
            except Error as error:
                _logger.warning("bridge: a signal of another machine's was not sent: %s", error)


class Exports:
    """All of one link."""

    def __init__(self, most: int, shares: Shares, doors: Doors) -> None:
        """None yet, and so many at most; of what the other may have by all its links, which is borrowed."""
        self._most = most
        self._doors = doors
        self._shares = shares
        self._part = Part(shares.exports)
        self._last = 0
        self._to_look_at: list[int] = []
        self._by_number: dict[int, Export] = {}
        self._by_thing: dict[tuple[object, object], Export] = {}

    def mention(self, thing: Thing, root: Root | None) -> Export:
        """One that the other is told of, once more.

        Raises:
            TooMany: it would be one more than may be.
        """
        key = (_identity(thing), root)
        export = self._by_thing.get(key)
        if export is None:
            if len(self._by_number) >= self._most:
                raise TooMany(f"{self._most:,} capabilities are exported to that bridge, which is as many as may be")
            self._take(thing)
            self._last += 1
            door = _door(thing)
            export = Export(self._last, thing, root, door, self._doors.turns(door))
            self._by_thing[key] = self._by_number[self._last] = export
        export.mentions += 1
        return export

    def at(self, number: int) -> Export | None:
        """The one with that number."""
        return self._by_number.get(number)

    def release(self, number: int, mentions: int) -> None:
        """The other does not hold it any more, as far as it was told of it so often."""
        export = self._by_number.get(number)
        if export is None:
            return
        export.mentions -= mentions
        if export.mentions <= 0:
            self.remove(export)

    def remove(self, export: Export) -> None:
        """It can't be called any more."""
        if self._by_number.pop(export.number, None) is not None:
            del self._by_thing[(_identity(export.thing), export.root)]
            self._give_back(export)

    def gone(self) -> Iterable[Export]:
        """Those whose server is gone, or has revoked them, among the next that it is their turn to be looked at.

        Each look is a system call: of very many, not all are looked at each time.
        """
        if not self._to_look_at:
            self._to_look_at = list(self._by_number)
        turn = self._to_look_at[-_LOOKED_AT:]
        del self._to_look_at[-_LOOKED_AT:]
        looked_at = [export for number in turn if (export := self._by_number.get(number)) is not None]
        return [
            export
            for export in looked_at
            if isinstance(export.thing, Capability) and (export.thing.closed or export.thing.gone)
        ]

    def of(self, root: Root) -> Iterable[Export]:
        """Those that were reached by a token."""
        return [export for export in self._by_number.values() if export.root is root]

    def clear(self) -> None:
        """The other is lost."""
        for export in self._by_number.values():
            self._give_back(export)
        self._by_number.clear()
        self._by_thing.clear()

    def __len__(self) -> int:
        return len(self._by_number)

    def _take(self, thing: Thing) -> None:
        """One more of what the other may have: its door is held here for that."""
        if not self._part.take():
            raise TooMany("more capabilities are not exported to that bridge: others have, or may need, the rest")
        if not self._shares.take_door(_door(thing)):
            self._part.give_back()
            raise TooMany(no_more_descriptors(self._shares.descriptors.held))

    def _give_back(self, export: Export) -> None:
        self._part.give_back()
        self._shares.give_back_door(export.door)


def _door(thing: Thing) -> int:
    return open_door_of(thing if isinstance(thing, Capability) else capability(thing)).key


def _identity(thing: Thing) -> object:
    # A Signal is made anew whenever a capability is cast to it.
    return thing if isinstance(thing, Capability) else capability(thing)
