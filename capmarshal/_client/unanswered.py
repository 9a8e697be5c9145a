"""Calls that have no answer: what is raised inside of the package, before it is known what to do or to say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._kernel.errors import CallTimeout, Disconnected, Revoked

if TYPE_CHECKING:
    from capmarshal._kernel.errors import Ran


class NeverRan(Exception):  # never leaves the package: the call is repeated, or becomes Disconnected
    """The channel ended, and the server certainly never had the whole call."""


class Unanswered(Exception):  # never leaves the package: it becomes the error that it names
    """A call that has no answer.

    No error for people until all is known that it says: a signal handler may raise one of its program's in here.

    Args:
        words: how far the call had come.
        ran: as :class:`CallTimeout` and :class:`Disconnected` have it.
    """

    becomes: type[CallTimeout | Disconnected | Revoked]

    def __init__(self, words: str, ran: Ran) -> None:
        super().__init__(words)
        self.ran: Ran = ran


class TooLate(Unanswered):
    """The call's own deadline passed."""

    becomes = CallTimeout


class ServerGone(Unanswered):
    """Its server is gone, or has left the call unanswered."""

    becomes = Disconnected


class Withdrawn(Unanswered):
    """Its server has revoked the grant that the call was made by."""

    becomes = Revoked
