"""Two links of the same two bridges, of which each has joined the other: what came by one goes home by the other.

Who has joined says who it is, and may lie.  So a bridge that was joined in another's name asks that one, by the link
that it made itself, with a token of it: whether it has made the other link, too, to this bridge; and has it prove that
by the key of that.  Only then does it speak by the one of what was exported by the other.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from capmarshal._bridge_engine.engine import EngineError
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.link import LinkLost
from capmarshal._bridge_link.messages import Kind, Pair, Paired
from capmarshal._bridge_link.sealing import NotGenuine

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._bridge_link.sealing import Label
    from capmarshal._bridge_link.tokens import Token

    from .partner import Partner

# Seconds that the question has for its answer.
_WITHIN = 5.0


async def pair(made: Partner, came: Partner) -> None:
    """Asks whether two links are of the same bridge, and has them speak of each other if so.

    Args:
        made: by which it is asked: this bridge has joined the other.
        came: the other has joined this one, by what it says.
    """
    question = Pair(came.link.token.subject, _proof(came.link.token, made.link.token, b"asked"))
    try:
        paired = await made.link.ask(Kind.PAIR, question, Paired, within=_WITHIN)
    except (EngineError, LinkLost, NotTaken, NotGenuine):
        # It is another one; or it is asked when the next link is made.
        return
    if hmac.compare_digest(paired.proof, _proof(came.link.token, made.link.token, b"answered")):
        _join(made, came)


def answer_pairs(came: Partner, made: Callable[[str], Partner | None]) -> None:
    """Has a partner that has joined this bridge answered which other link is of the same two.

    Args:
        came: it.
        made: gives what this bridge has joined, by its name.
    """

    async def answer(_label: Label, question: Pair) -> Paired:
        # By the name that the partner has given itself: a link to any other bridge is none of the same two.
        other = made(came.link.other)
        if other is not None:
            due = _proof(other.link.token, came.link.token, b"asked")
            if other.link.token.subject == question.subject and hmac.compare_digest(due, question.proof):
                _join(came, other)
                return Paired(_proof(other.link.token, came.link.token, b"answered"))
        raise NotTaken("it is no link of this bridge's")

    came.link.answer(Kind.PAIR, answer)


def _join(one: Partner, other: Partner) -> None:
    one.crossing.other, other.crossing.other = other.crossing, one.crossing


def _proof(of: Token, by: Token, word: bytes) -> bytes:
    """That one has the key of a link, of use by one other link alone."""
    return of.derive(b"capmarshal bridge 1 pair " + word, by.subject.encode())
