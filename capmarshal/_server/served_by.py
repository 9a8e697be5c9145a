"""What calls need of the server that has them run: handed over once, when there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from capmarshal._server.limits import Limits
from capmarshal._server.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.capability import Capability
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.grant import Grant
    from capmarshal._typed.interface import Interface

HandOut: TypeAlias = "Callable[[Interface, Peer | None, Grant | None, object], Capability | None]"


class ServedBy(NamedTuple):
    """What a server lets its calls ask of it, and have it do.

    Attributes:
        channel_of: which channel is in a slot.
        slot: of the channel that the last record came by.
        grant_at: which grant has a door, by the key of that.
        hand_out: gives an object that nobody manages a capability, in the result of a call of a process, by a grant,
            or in a stream that was begun by a call of the last; None where nobody serves any more.
        hand_under: has what is in the result of a call through a deep grant belong to that; its badge, or None
            likewise.
        shares: what one answer may have.
    """

    channel_of: Callable[[int], Channel | None]
    slot: Callable[[], int]
    grant_at: Callable[[int], Grant | None]
    hand_out: HandOut
    hand_under: Callable[[Any, Grant], bytes | None]
    shares: Shares

    def peer_of(self, slot: int) -> Peer | None:
        """Whose channel is in a slot."""
        channel = self.channel_of(slot)
        return channel.peer if channel is not None else None


# Before there is a server: nobody calls, and nothing is sent.
NOBODY = ServedBy(
    channel_of=lambda _slot: None,
    slot=lambda: 0,
    grant_at=lambda _key: None,
    hand_out=lambda _target, _peer, _grant, _began: None,
    hand_under=lambda _thing, _grant: None,
    shares=Shares(Limits(), 0, 0),
)
