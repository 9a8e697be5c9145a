"""A door, as its holders have it: the client end of an entrypoint's socket pair, one descriptor in each process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from capmarshal._capabilities.identity import peer_name
from capmarshal._kernel.native import NOW, lib

if TYPE_CHECKING:
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._protocol.wire import Entry, Fail, Reply


class Home(Protocol):
    """What a door's holder in the entrypoint's own process sees of the entrypoint: where its capabilities come home."""

    def object_behind(self, badge: bytes) -> object | None:
        """The managed object that the badge selects, if any."""
        ...

    def serves_this_thread(self) -> bool:
        """Whether the current thread is the one that runs its calls."""
        ...

    def call_inline(
        self, badge: bytes, method: bytes, payload: bytes, entries: list[Entry], numbers: list[int]
    ) -> tuple[Reply | Fail, DescriptorList]:
        """Runs a call here and now; borrows ``numbers``, and the caller owns the answer's descriptors."""
        ...


class DoorSender(Protocol):
    """Somebody who sends capabilities here, so that new doors come with them: a client of an entrypoint."""

    def door_refusal(self) -> str:
        """Why one more new door is not taken from this sender; empty if it is."""
        ...

    def hold_door(self, door: Door) -> None:
        """Counts a new door that this sender brought, for as long as the door lives."""
        ...


class Door:
    """The client end of an entrypoint's socket pair, as this process holds it: one descriptor.

    Args:
        number: taken.
        cookie: of the socket.

    Attributes:
        number: the descriptor, open as long as this object lives: whoever uses it holds the door.
        idle: channels through this door that no call uses at the moment.
        home: the entrypoint, if it is one of this process.
        sender: who brought it, if that is counted: known as long as the door is held.
    """

    __slots__ = ("__weakref__", "cookie", "home", "idle", "name", "number", "sender")

    def __init__(self, number: int, cookie: int) -> None:
        self.number = number
        self.cookie = cookie
        self.idle: list[Any] = []
        self.home: Home | None = None
        self.sender: DoorSender | None = None
        self.name = peer_name(number)

    @property
    def hung_up(self) -> bool:
        """Whether the server's end is closed: it polls HUP.  The shared socket's error is left for others to see."""
        return lib.cm_wait(self.number, 0, NOW) > 0

    def __del__(self) -> None:
        lib.lx_close(self.number)
