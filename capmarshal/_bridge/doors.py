"""Doors that are made here for what another bridge has: how many one link may have of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .shares import no_more_descriptors

if TYPE_CHECKING:
    from .shares import Part

# Descriptors: both ends of one.
_OF_ONE = 2


class NoRoom(Exception):
    """There is no room for one more of what another bridge has."""


class Doors:
    """Those of one link, for one sort of things."""

    def __init__(self, descriptors: Part, other: str) -> None:
        """None yet; what they may have of descriptors is borrowed, and the other bridge's name is for people."""
        self._descriptors = descriptors
        self._other = other

    def take(self) -> None:
        """One more is made.

        Raises:
            NoRoom: it is not to be.
        """
        if not self._descriptors.take(_OF_ONE):
            raise NoRoom(no_more_descriptors(self._descriptors.held, self._other))

    def give_back(self, count: int = 1) -> None:
        """So many are closed."""
        self._descriptors.give_back(count * _OF_ONE)
