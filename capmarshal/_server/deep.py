"""What belongs to a deep grant besides its root: the objects that methods hand out through it, behind the same door.

Each has a badge of the grant's own, so that whoever holds the grant holds no more than it: what is handed out ends with
it, and costs no descriptor.  Only what the entrypoint itself serves can go that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Capability, Proxy, badge_of, open_door_of
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.space import capability_of, space
from capmarshal._kernel.errors import StaleCapability
from capmarshal._protocol.wire import SIGNAL_BADGE

if TYPE_CHECKING:
    from capmarshal._capabilities.door import Door, Home
    from capmarshal._typed.interface import Interface


class Deep:
    """The objects of one deep grant.  Whoever calls holds the lock of the grants.

    What is handed out by another grant's capability ends with that one as well, so it is told apart by the key of its
    door; by 0 is what is handed out by none.  An object may be there by several, with a badge for each.

    Args:
        most: how many there may be, the root not counted.

    Attributes:
        most: as given.
    """

    __slots__ = ("_by", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        # By that key, and the id of each.
        self._by: dict[int, dict[int, tuple[Interface, bytes]]] = {}

    @property
    def full(self) -> bool:
        """Whether there may be no more."""
        return sum(map(len, self._by.values())) >= self.most

    @property
    def others(self) -> tuple[int, ...]:
        """The keys of the doors of other grants by whose capabilities something was handed out."""
        return tuple([key for key in self._by if key])

    def badge_for(self, target: Interface, by: int) -> bytes | None:
        """The badge of an object that belongs to it by that, if it does."""
        found = self._by.get(by, {}).get(id(target))
        return found[1] if found is not None else None

    def add(self, target: Interface, by: int, badge: bytes) -> None:
        """Takes one more."""
        self._by.setdefault(by, {})[id(target)] = target, badge

    def badges_of(self, target: Interface) -> tuple[bytes, ...]:
        """Those of an object."""
        return tuple([objects[id(target)][1] for objects in self._by.values() if id(target) in objects])

    def remove(self, target: Interface) -> None:
        """Takes an object out."""
        for objects in self._by.values():
            objects.pop(id(target), None)

    def badges_by(self, by: int) -> tuple[bytes, ...]:
        """Those of what was handed out by another grant's capability."""
        return tuple([badge for _, badge in self._by.get(by, {}).values()])

    def remove_by(self, by: int) -> None:
        """Takes that out."""
        self._by.pop(by, None)

    def badges(self) -> tuple[bytes, ...]:
        """Those of all."""
        return tuple([badge for objects in self._by.values() for _, badge in objects.values()])

    def clear(self) -> None:
        """Has none any more."""
        self._by.clear()


def own_object(thing: Any, home: Home, key: int) -> tuple[Interface, Door | None] | bytes:
    """What is to go through a deep grant: the object; or its badge, where that is of the grant's own door.

    Beside the object is the door by whose capability it is handed out, if it is by one.

    Args:
        thing: an object, or what stands for one.
        home: the entrypoint.
        key: of the door.

    Raises:
        TypeError: it is another's, or restricted.
        StaleCapability: it stands for an object that is not there.
    """
    if not issubclass(type(thing), (Capability, Proxy)):
        managed = space.managed.get(id(thing))
        if managed is not None and home_of(managed[0]) is not home:
            raise _foreign(managed[0])
        # Whatever it is, it is looked at when it is served.
        return thing, None
    capability = capability_of(thing)
    door, badge = open_door_of(capability), badge_of(capability)
    if badge == SIGNAL_BADGE:
        raise TypeError(
            "a signal, which has a door of its own, as nothing has that goes out through a deep grant: have the client "
            "pass one of its own, as an argument"
        )
    if home_of(door) is not home:
        raise _foreign(door)
    kept_under = door.kept_under(badge)
    target = home.object_behind(kept_under)
    if target is None:
        raise StaleCapability("a capability in it stands for an object that is not there any more")
    if door.key == key:
        return badge
    if not home.lets_call_all(kept_under):
        raise TypeError(
            f"a capability of the grant {door.label!r}, which lets call some methods only (only=...): what goes out "
            "through a deep grant can be called whole, so return the object itself, if that is meant"
        )
    return target, door  # type: ignore[return-value]  # what an entrypoint has is one


def _foreign(door: Door) -> TypeError:
    return TypeError(
        f"a capability of {door.label!r}, which is none of this entrypoint's: what goes out through a deep grant is "
        "served through its door, and revoked with it; return an object of this entrypoint that calls it"
    )
