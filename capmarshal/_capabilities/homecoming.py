"""By which capability an object came home that a call was given itself, so that it goes out again by no other.

A method gets its own entrypoint's objects themselves, and does with them what it likes.  But what it was given is a
capability, which may be revoked: where it hands the object out again, it hands that on, and makes no more of it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from capmarshal._capabilities.door import Door

# By what an object came: a door, and the badge of the object through that.
CameBy: TypeAlias = "tuple[Door, bytes]"


class CameHome:
    """The objects that came home with the arguments of one call.

    As long as the call knows them, it holds the doors by which they came.
    """

    __slots__ = ("_ways",)

    def __init__(self) -> None:
        # By the id of each object, which is kept.
        self._ways: dict[int, tuple[object, CameBy]] = {}

    def note(self, thing: object, way: CameBy) -> None:
        """One has come; of several ways the first counts, as whoever calls holds them all."""
        self._ways.setdefault(id(thing), (thing, way))

    def way_of(self, thing: object) -> CameBy | None:
        """How an object came, if it did."""
        found = self._ways.get(id(thing))
        return found[1] if found is not None else None

    def copy(self) -> CameHome:
        """The same, for what is begun in the call and goes on when that has ended."""
        made = CameHome()
        made._ways.update(self._ways)
        return made

    def clear(self) -> None:
        """Knows none any more: the call has ended, and what was begun in it may go on."""
        self._ways.clear()


def to_go_on() -> CameHome | None:
    """What a stream has of it that is begun here, and is an argument of another call."""
    return copy_of(here.get())


def copy_of(came_home: CameHome | None) -> CameHome | None:
    """The same, as far as there is any."""
    return came_home.copy() if came_home is not None else None


# Of the call that runs here, where something has come home with it.
here: ContextVar[CameHome | None] = ContextVar("capmarshal.came_home", default=None)
