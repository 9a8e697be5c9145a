"""A grant, as its server knows it: a door that leads to one object, for one recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.private import Private
from capmarshal._protocol.wire import combined

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.deep import Deep
    from capmarshal._server.objects import Objects
    from capmarshal._typed.interface import Interface


class Grant:
    """One of them.

    Args:
        label: what the server calls the recipient.
        target: the object.
        secret: of its door.
        badge: of the object, through that.
        unreachable: called with the object when nobody can call it by this grant any more; None: nothing is.
        deep: what was handed out through it and belongs to it; None: what is handed out has grants of its own.

    Attributes:
        target: as given; None from when the grant is over.
        unreachable: as given; None from when it is called, or the grant over.
        key: of its door in the capability space; 0 until it has one.
        end: the server's end of that.
        channels: that were made through its door.
        reason: why it was revoked; None as long as it is not.
        silent: those who held it are not told so: to them its server has gone.
        shut: nobody can knock at it any more.
        streams: that were begun through it, or were an item of such, and somebody can reach.
        through: the one with which this is revoked: it is a stream of that, or the same object; None: with none.
        passed_on: deep ones that have handed out its object by a capability of it, which ends with it.
    """

    __slots__ = (
        "badge",
        "channels",
        "deep",
        "end",
        "key",
        "label",
        "passed_on",
        "reason",
        "secret",
        "shut",
        "silent",
        "streams",
        "target",
        "through",
        "unreachable",
    )

    def __init__(
        self,
        label: str,
        target: Interface,
        secret: bytes,
        badge: bytes,
        unreachable: Callable[[Interface], object] | None,
        deep: Deep | None = None,
    ) -> None:
        self.label = label
        self.target: Interface | None = target
        self.secret, self.badge = secret, badge
        self.unreachable = unreachable
        self.deep = deep
        self.key = 0
        self.end = Private(-1)
        # Any: a channel is more than a grant, of which it knows.
        self.channels: set[Any] = set()
        self.reason: str | None = None
        self.shut = self.silent = False
        self.streams: set[Grant] = set()
        self.through: Grant | None = None
        self.passed_on: set[Grant] = set()

    @property
    def kept_under(self) -> bytes:
        """What the object is kept under."""
        return combined(self.badge, self.secret)

    def __repr__(self) -> str:
        return f"<Grant {self.label!r}>"


def end_object(grant: Grant, target: Interface, objects: Objects) -> None:
    """Ends what leads to an object through a grant that may be deep, if anything does; the caller holds the lock."""
    if grant.deep is not None:
        for badge in grant.deep.badges_of(target):
            objects.remove(combined(badge, grant.secret))
        # Last, so that it can be done again after Ctrl-C; likewise below.
        grant.deep.remove(target)


def end_passed_on(grant: Grant, objects: Objects) -> None:
    """Ends what deep grants have handed out by a capability of a grant that is revoked; the caller holds the lock.

    Not where nobody can reach that any more: a method may have made it for what it returns, and kept none of it.
    """
    for other in tuple(grant.passed_on):
        if other.deep is not None:
            for badge in other.deep.badges_by(grant.key):
                objects.remove(combined(badge, other.secret))
            other.deep.remove_by(grant.key)
