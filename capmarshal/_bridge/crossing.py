"""What stands in the table of a call or a result, on its way to another machine, and as it comes from there.

A capability is mentioned by a number: of what is exported here, or of what the other has exported, which comes home as
the original.  A signal likewise.  A dataspace is lent, and copied by who receives it.  Descriptors, and memory that is
shared, stay where they are.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal import Capability, Dataspace, Descriptor, SharedBuffer, Signal, StaleCapability, TooLarge
from capmarshal._bridge_link.messages import Copied, Long, Mention, Mine, Others, Payload, Yours

from .dataspaces import copied, described, found_in
from .exports import TooMany
from .fetching import Window, fetch
from .limits import TABLE_MOST
from .shares import no_more_descriptors
from .staying import Stays

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .budget import Spending
    from .exports import Exports, Root
    from .imports import Imports
    from .lending import Lender
    from .shares import Part
    from .signals import Signals

    Asking: TypeAlias = Callable[[int, int, int], Awaitable[bytes]]
    Released: TypeAlias = Callable[[int, int], None]

# Bytes of a payload that go with their call, or result; longer ones are fetched.
SHORT = 512 << 10

# So many things that have come are made before it is somebody else's turn.
_A_TURN = 50

_STAYS = {
    Descriptor: "a descriptor (a file, a socket or memory) is of this machine",
    SharedBuffer: "a SharedBuffer is memory of this machine",
}


@dataclass
class Left:
    """What was mentioned, to be taken back, or let go.

    Attributes:
        mentions: in their order.
        exported: numbers of what was exported by that, once each.
        lent: numbers of what was lent.
        homing: what comes home to the other: held here until it has, since the other lets go of it when nobody does.
    """

    mentions: list[Mention] = field(default_factory=list)
    exported: list[int] = field(default_factory=list)
    lent: list[int] = field(default_factory=list)
    homing: list[Capability] = field(default_factory=list)


@dataclass
class Arrived:
    """What has come of a table.

    Attributes:
        mentions: the table.
        things: those of it that are held here now, each in its place; the first of them, as long as it is not entered.
        error: why there are no more of them, if one could not be made.
    """

    mentions: Sequence[Mention]
    things: list[Capability | Signal | None] = field(default_factory=list)
    error: Exception | None = None


class Crossing:
    """The border, of one link.

    Attributes:
        other: that of the other link of the same two bridges, if there is one.
    """

    def __init__(
        self,
        exports: Exports,
        imports: Imports,
        signals: Signals,
        lender: Lender,
        *,
        asking: Asking,
        refused: Released,
        max_dataspace: int,
        descriptors: Part,
    ) -> None:
        """The first four are borrowed, and so are the descriptors that may be held for dataspaces.

        ``asking`` fetches (number, offset, size) of what the other has lent; ``refused`` says of a number that was
        mentioned that it is not held; a dataspace that is copied has ``max_dataspace`` bytes at most.
        """
        self._exports = exports
        self._imports = imports
        self._signals = signals
        self._lender = lender
        self._asking = asking
        # Of all that is fetched by this link.
        self._window = Window()
        self._refused = refused
        self._max_dataspace = max_dataspace
        self._descriptors = descriptors
        # Numbers of the dataspaces that are lent: each is a descriptor.
        self._lent: set[int] = set()
        self.other: Crossing | None = None

    # Leaving -------------------------------------------------------------------------------------------------------

    def leave(self, table: Sequence[Any], root: Root | None, where: str) -> Left:
        """What is said to the other of what stands in a table.

        Args:
            table: borrowed; its dataspaces until what is lent is let go.
            root: the token that was called by, if any.
            where: whose table, for errors.

        Raises:
            Stays: something in it can't go to another machine; nothing was said.
            TooMany: one more would be exported than may be, or the table is too long; likewise.
        """
        left = Left()
        if len(table) > TABLE_MOST:
            raise TooMany(
                f"{len(table):,} capabilities and dataspaces in one table, and a bridge's maximum is {TABLE_MOST:,}: "
                "send them by several calls"
            )
        try:
            for place, thing in enumerate(table):
                left.mentions.append(self._mention(thing, root, left, where, place))
        except BaseException:
            self.take_back(left)
            raise
        return left

    def pay(self, payload: bytes, left: Left) -> Payload:
        """A payload as it is said."""
        if len(payload) <= SHORT:
            return payload
        number = self._lender.lend(payload)
        left.lent.append(number)
        return Long(number, len(payload))

    def take_back(self, left: Left) -> None:
        """What was mentioned has never come, and never will.  Does nothing the second time."""
        for number in left.exported:
            self._exports.release(number, 1)
        left.exported.clear()
        self.let_go(left)

    def let_go(self, left: Left) -> None:
        """The other has fetched what it wanted."""
        for number in left.lent:
            self._lender.end(number)
            if number in self._lent:
                self._lent.remove(number)
                self._descriptors.give_back()
        left.lent.clear()
        left.homing.clear()

    def _mention(self, thing: Any, root: Root | None, left: Left, where: str, place: int) -> Mention:
        if isinstance(thing, Dataspace):
            return self._lend(thing, left)
        if isinstance(thing, Descriptor) and (found := found_in(thing)) is not None:
            with found:
                return self._lend(found, left)
        if isinstance(thing, Capability):
            if (own := self._imports.number_of(thing.local)) is not None:
                left.homing.append(thing)
                return Yours(own)
            if self.other is not None and (theirs := self.other.number_of(thing)) is not None:
                left.homing.append(thing)
                return Others(theirs)
        elif not isinstance(thing, Signal):
            why = next((words for kind, words in _STAYS.items() if isinstance(thing, kind)), f"it is {thing!r:.100}")
            raise Stays(f"{where}, entry {place} of the table", f"can't go to another machine: {why}")
        export = self._exports.mention(thing, root)
        left.exported.append(export.number)
        return Mine(export.number, isinstance(thing, Signal))

    def _lend(self, dataspace: Dataspace, left: Left) -> Copied:
        if not self._descriptors.take():
            raise TooMany(no_more_descriptors(self._descriptors.held))
        try:
            number = self._lender.lend(dataspace)
        except BaseException:
            self._descriptors.give_back()
            raise
        self._lent.add(number)
        left.lent.append(number)
        return Copied(number, described(dataspace))

    def lose(self) -> None:
        """The other is lost: nothing is lent any more."""
        self._lender.end_all()
        self._descriptors.give_back(len(self._lent))
        self._lent.clear()

    def number_of(self, thing: Capability) -> int | None:
        """By which number the other has exported a capability by this link; None of any other."""
        return self._imports.number_of(thing.local)

    def exported(self, number: int) -> Capability | Signal | None:
        """What was exported by this link under a number, if it still is."""
        export = self._exports.at(number)
        return None if export is None else export.thing

    # Entering ------------------------------------------------------------------------------------------------------

    def arrive(self, mentions: Sequence[Mention]) -> Arrived:
        """Takes what the other has mentioned: it has come, whatever becomes of it here.

        Of very much, the first; the others when it is entered, and :meth:`turn_away` where it never will be.
        """
        arrived = Arrived(mentions)
        self._take_some(arrived)
        return arrived

    def turn_away(self, arrived: Arrived) -> None:
        """What was not taken never will be, and the other is told that nobody has it.  Does nothing the second time."""
        if len(arrived.things) == len(arrived.mentions):
            return
        rest = arrived.mentions[len(arrived.things) :]
        for mention in rest:
            if isinstance(mention, Mine):
                self._refused(mention.number, 1)
        arrived.things += [None] * len(rest)

    def _take_some(self, arrived: Arrived) -> None:
        begin = len(arrived.things)
        try:
            for mention in arrived.mentions[begin : begin + _A_TURN]:
                arrived.things.append(self._arrived(mention))
        except Exception as error:  # noqa: BLE001 - raised where it is entered
            arrived.error = error.with_traceback(None)
            self.turn_away(arrived)

    async def enter(self, arrived: Arrived, into: list[Any], copying: Spending) -> None:
        """Makes what the other has mentioned.

        Args:
            arrived: of a table.
            into: where it is put, one after the other: its dataspaces are the caller's, also where this raises.
            copying: bytes of its dataspaces.

        Raises:
            StaleCapability: it speaks of what is not exported any more.
            ArgumentError, TooLarge, OSError: it can't be made.
            NoRoom: there is no room for it.
            LinkLost: the other is lost.
        """
        if not arrived.mentions:
            return
        while len(arrived.things) < len(arrived.mentions):
            await asyncio.sleep(0)
            self._take_some(arrived)
        error, arrived.error = arrived.error, None
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback refers to this frame.
                del error
        # All at once: of two that have some and wait for more, neither would ever get it.  What is said of them is not
        # looked at before: it may be less than nothing.
        coming = [mention for mention in arrived.mentions if isinstance(mention, Copied)]
        copying.hold(self._descriptors, len(coming))
        await copying.wait(sum(max(mention.described.size, 0) for mention in coming))
        for place, mention in enumerate(arrived.mentions):
            if (capability := arrived.things[place]) is not None:
                into.append(capability)
            elif isinstance(mention, Yours | Others):
                by = self if isinstance(mention, Yours) else self.other
                thing = by.exported(mention.number) if by is not None else None
                if thing is None:
                    raise StaleCapability(f"entry {place} of the table is not there any more")
                into.append(thing)
            elif isinstance(mention, Copied):
                ask = partial(self._asking, mention.number)
                into.append(await copied(mention.described, ask, self._max_dataspace, window=self._window))

    async def receive(self, payload: Payload, most: int, spending: Spending) -> bytes:
        """A payload, fetched if it has to be.

        Raises:
            TooLarge: it has more bytes than that; or there never is room for so many.
        """
        if isinstance(payload, bytes):
            await spending.wait(len(payload))
            return payload
        if payload.size > most or payload.size < 0:
            raise TooLarge(f"{payload.size:,} bytes, and the bridge's maximum is {most:,} (max_bytes)")
        await spending.wait(payload.size)
        made = bytearray(payload.size)
        await fetch(partial(self._asking, payload.number), payload.size, made, window=self._window)
        return bytes(made)

    def _arrived(self, mention: Mention) -> Capability | Signal | None:
        if not isinstance(mention, Mine):
            return None
        return (self._signals if mention.is_signal else self._imports).mention(mention.number)
