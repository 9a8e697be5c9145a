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

if TYPE_CHECKING:
    from capmarshal._capabilities.door import Door, Home
    from capmarshal._typed.interface import Interface


class Deep:
    """The objects of one deep grant.  Whoever calls holds the lock of the grants.

    Args:
        most: how many there may be, the root not counted.

    Attributes:
        most: as given.
    """

    __slots__ = ("_badges", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        # By the id of each.
        self._badges: dict[int, tuple[Interface, bytes]] = {}

    @property
    def full(self) -> bool:
        """Whether there may be no more."""
        return len(self._badges) >= self.most

    def badge_for(self, target: Interface) -> bytes | None:
        """The badge of an object that belongs to it, if it does."""
        found = self._badges.get(id(target))
        return found[1] if found is not None else None

    def add(self, target: Interface, badge: bytes) -> None:
        """Takes one more."""
        self._badges[id(target)] = target, badge

    def remove(self, target: Interface) -> bytes | None:
        """Takes one out; its badge, if it was there."""
        found = self._badges.pop(id(target), None)
        return found[1] if found is not None else None

    def badges(self) -> tuple[bytes, ...]:
        """Those of all."""
        return tuple([badge for _, badge in self._badges.values()])

    def clear(self) -> None:
        """Has none any more."""
        self._badges.clear()


def own_object(thing: Any, home: Home, key: int) -> Interface | bytes:
    """What is to go through a deep grant: the object; or its badge, where that is of the grant's own door.

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
        return thing  # type: ignore[no-any-return]  # whatever it is, it is looked at when it is served
    capability = capability_of(thing)
    door, badge = open_door_of(capability), badge_of(capability)
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
    return target  # type: ignore[return-value]  # what an entrypoint has is one


def _foreign(door: Door) -> TypeError:
    return TypeError(
        f"a capability of {door.label!r}, which is none of this entrypoint's: what goes out through a deep grant is "
        "served through its door, and revoked with it; return an object of this entrypoint that calls it"
    )
