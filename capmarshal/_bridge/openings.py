"""What tokens stand for, asked for by a link: what was given and has not been heard of is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from capmarshal._bridge_engine.engine import NotSent
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.link import LinkLost
from capmarshal._bridge_link.messages import Kind, Open, Opened

from .exports import TooMany

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capmarshal import Capability
    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.sealing import Label
    from capmarshal._bridge_link.tokens import Token

    from .exports import Exports, Root
    from .imports import Imports
    from .pinging import Pinging
    from .turns import Turns

    Opening: TypeAlias = Callable[[Open], Awaitable[tuple[Capability, Root]]]

# Seconds in which the other says what a token stands for.
_WITHIN = 5.0

# So many may be under way, or not heard of.
_MOST = 1_000

_GIVEN_UP = "it was given up"


class Openings:
    """All of one link, both ways."""

    def __init__(
        self,
        link: Link,
        exports: Exports,
        imports: Imports,
        pinging: Pinging,
        *,
        opening: Opening,
        turns: Turns,
        bridge: object,
    ) -> None:
        """None yet; all are borrowed.

        ``opening`` gives what a token of this machine's stands for, and raises NotTaken where that is nothing; that
        takes its time, and ``turns`` say how many of it go on at once for this bridge, and how many for all.
        """
        self._link = link
        self._exports = exports
        self._imports = imports
        self._pinging = pinging
        self._opening = opening
        self._turns = turns
        self._bridge = bridge
        # The numbers of what the other was given and may not have heard of: by its question; none yet, where it is
        # being looked for.
        self._given: dict[bytes, int | None] = {}
        link.answer(Kind.OPEN, self._asked)
        link.at_loss(lambda _why: self._given.clear())

    async def ask(self, token: Token, *, anew: str) -> Capability:
        """What one of the other's tokens stands for.

        Args:
            token: which.
            anew: by a grant of its own, with that label; empty: by any.

        Raises:
            NotTaken: there is no such token, or what it stands for can't be reached.
            NotSent, Unanswered, LinkLost, NotGenuine: it can't be asked.
            TableFull, NoRoom: no room for it.
        """
        question = Open(token.subject, token.proof(self._link.token))
        number = self._link.new_id()
        try:
            opened = await self._link.ask(Kind.OPEN, question, Opened, within=_WITHIN, number=number)
        except (NotSent, NotTaken, LinkLost):
            raise
        except BaseException:
            self._pinging.given_up(number)
            raise
        # It has come, whatever becomes of it here.
        self._pinging.ended(number, 0)
        try:
            return self._imports.mention(opened.number, anew=anew)
        except Exception:
            self._pinging.released(opened.number, 1)
            raise

    def ended(self, number: bytes) -> None:
        """The other has heard what it was given by that question, if it was one of these."""
        self._given.pop(number, None)

    def given_up(self, number: bytes) -> None:
        """The other does not wait for the answer to that question any more, if it is one of these."""
        if number not in self._given:
            self._link.bar(Kind.OPEN, number)
        elif (given := self._given.pop(number)) is not None:
            self._exports.release(given, 1)

    async def _asked(self, label: Label, question: Open) -> Opened:
        if len(self._given) >= _MOST:
            raise NotTaken(f"{_MOST:,} tokens are asked for by that bridge, which is as many as may be")
        if label.call in self._given:
            raise NotTaken("its ID is that of another question")
        self._given[label.call] = None
        try:
            thing, root = await self._in_turn(label, question)
            if label.call not in self._given:
                raise NotTaken(_GIVEN_UP)
            given = self._exports.mention(thing, root).number
        except BaseException as error:
            self._given.pop(label.call, None)
            if isinstance(error, TooMany):
                raise NotTaken(str(error)) from None
            raise
        self._given[label.call] = given
        return Opened(given)

    async def _in_turn(self, label: Label, question: Open) -> tuple[Capability, Root]:
        if not await self._turns.take(self._bridge, 0, _WITHIN):
            raise NotTaken("others that were asked for by that bridge have not come")
        try:
            if label.call not in self._given:
                raise NotTaken(_GIVEN_UP)
            return await self._opening(question)
        finally:
            self._turns.give_back(self._bridge, 0)
