"""A grant, as its server knows it: a door that leads to one object, for one recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._protocol.wire import combined

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._typed.interface import Interface


class Grant:
    """One of them.

    Args:
        label: what the server calls the recipient.
        target: the object.
        secret: of its door.
        badge: of the object, through that.
        key: of its door in the capability space.
        end: the server's end of the door, taken.
        unreachable: called with the object when nobody can call it by this grant any more; None: nothing is.

    Attributes:
        kept_under: what the object is kept under.
        channels: that were made through its door.
        reason: why it was revoked; None as long as it is not.
        shut: nobody can knock at it any more.
    """

    __slots__ = (
        "channels",
        "end",
        "kept_under",
        "key",
        "label",
        "reason",
        "secret",
        "shut",
        "target",
        "unreachable",
    )

    def __init__(
        self,
        label: str,
        target: Interface,
        secret: bytes,
        badge: bytes,
        key: int,
        end: Private,
        unreachable: Callable[[Interface], object] | None,
    ) -> None:
        self.label = label
        self.target = target
        self.secret = secret
        self.kept_under = combined(badge, secret)
        self.key = key
        self.end = end
        self.unreachable = unreachable
        # Any: a channel is more than a grant, of which it knows.
        self.channels: set[Any] = set()
        self.reason: str | None = None
        self.shut = False

    def __repr__(self) -> str:
        return f"<Grant {self.label!r}>"
