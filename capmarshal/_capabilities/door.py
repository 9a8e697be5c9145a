"""A door, as its holders have it: the client end of an entrypoint's socket pair, one descriptor in each process."""

from __future__ import annotations

import socket
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from capmarshal._capabilities.identity import label_in, peer_name, whose_in
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._kernel.lifetime import when_gone
from capmarshal._kernel.native import NOW, ffi, lib
from capmarshal._protocol import epitaph
from capmarshal._protocol.wire import NO_SECRET, combined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._descriptors.closing_jobs import Sender
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._protocol.wire import Entry, Fail, Reply


# include/uapi/asm-generic/socket.h; CPython's socket module has no name for it.
_SO_PEEK_OFF = 42
# At what a door says last: the first may find that somebody's knock was not read (ECONNRESET), which is told once.
_LOOKS = 2


class Home(Protocol):
    """What a door's holder in the entrypoint's own process sees of the entrypoint: where its capabilities come home."""

    def object_behind(self, kept_under: bytes) -> object | None:
        """The object that is kept under this, see :meth:`Door.kept_under`, if any."""
        ...

    def lets_call_all(self, kept_under: bytes) -> bool:
        """Whether all methods of that object can be called by whoever holds the door."""
        ...

    @property
    def label(self) -> str:
        """Of the entrypoint."""
        ...

    @property
    def begun_by(self) -> str:
        """What has it served, for people."""
        ...

    def served(self) -> bool:
        """Whether some thread runs its calls."""
        ...

    def serves_this_thread(self) -> bool:
        """Whether the current thread is the one that runs its calls."""
        ...

    def takes_no_other(self) -> bool:
        """Whether the current thread is that one, and within something that keeps it from running any other call."""
        ...

    def never_while_awaited(self) -> str:
        """Why nothing that it is to do is done as long as the event loop runs that is here, after what is awaited.

        Empty if it is done: by another thread, or in this event loop.
        """
        ...

    def never_while_blocked(self, awaited: str) -> str:
        """Why nothing that it is to do is done as long as this thread waits, likewise; empty if another thread does it.

        Args:
            awaited: what may be awaited instead, in an event loop.
        """
        ...

    def method_here(self) -> object | None:
        """Of methods that are awaited, the one that runs here, in its task or one that it has started; any home's."""
        ...

    def call_inline(
        self,
        door: Door,
        badge: bytes,
        method: bytes,
        payload: bytes,
        entries: Sequence[Entry] | None,
        numbers: Sequence[int],
    ) -> tuple[Reply | Fail, DescriptorList]:
        """Runs a call here and now; borrows ``numbers``, and the caller owns the answer's descriptors.

        Where ``entries`` is None, each of the numbers has one, in their order.
        """
        ...


class DoorSender(Protocol):
    """Somebody who sends capabilities here, so that new doors come with them: a client of an entrypoint."""

    @property
    def closing(self) -> Sender:
        """To whose account the closing of such a door goes."""
        ...

    def door_refusal(self) -> str:
        """Why one more new door is not taken from this sender; empty if it is."""
        ...

    def hold_door(self, key: int) -> None:
        """Counts a new door that this sender brought."""
        ...

    def let_door_go(self, key: int) -> None:
        """Counts a door no more, if it was counted: it is about to be closed."""
        ...


class Door:
    """The client end of an entrypoint's socket pair, as this process holds it: one descriptor.

    Args:
        descriptor: taken.
        key: what it is known by in this process, and no other door: see :class:`~capmarshal._capabilities.space.Space`.
        home: the entrypoint, if it is one of this process; borrowed.
        sender: who brought it, if that is counted.
        secret: of the door, if it is one of this process.

    Attributes:
        number: the descriptor, open as long as this object can be reached: whoever uses it holds the door.
        home: refers to the entrypoint, weakly: a capability keeps its door alive, and nothing else.  None if it is none
            of this process, or closed.
        idle: channels through this door that no call uses at the moment.
        closing: to whose account the closing goes of what its server sends; made with the first channel.
    """

    __slots__ = ("__weakref__", "_name", "_open", "_secret", "closing", "home", "idle", "key", "number")

    def __init__(
        self,
        descriptor: Descriptor,
        key: int,
        home: Home | None = None,
        sender: DoorSender | None = None,
        *,
        secret: bytes = NO_SECRET,
    ) -> None:
        self.key: int = key
        # Each call takes one and gives it back, for which a list would be allocated anew.
        self.idle: deque[Any] = deque()
        self.home: weakref.ref[Home] | None = weakref.ref(home) if home is not None else None
        self.closing: Sender | None = None
        self._secret = secret
        self._name: str | None = None
        place = [-1]
        self._open = ffi.new("char *")
        when_gone(self._open, _close if home is None else _close_own, place, key, sender)
        # Moved in one step, as in `moving`.
        place[0], descriptor._number = descriptor._number, -1  # noqa: SLF001 - see above
        self.number: int = place[0]
        if sender is not None:
            sender.hold_door(key)

    @property
    def name(self) -> str:
        """What ``getpeername`` says of it, when somebody first asks; empty for a nameless door."""
        if self._name is None:
            self._name = peer_name(self.number) or ""
        return self._name

    @property
    def label(self) -> str:
        """What its server called the entrypoint, or the grant; empty for a nameless door."""
        return label_in(self.name)

    @property
    def whose(self) -> str:
        """Whose it is, for people: an entrypoint's or a grant's, with its label."""
        return whose_in(self.name)

    @property
    def hung_up(self) -> bool:
        """Whether the server's end is closed: it polls HUP.  The shared socket's error is left for others to see."""
        return lib.cm_wait(self.number, 0, NOW) > 0

    def kept_under(self, badge: bytes) -> bytes:
        """What its entrypoint, one of this process, keeps an object under."""
        return combined(badge, self._secret)

    def epitaph(self) -> str | None:
        """Why its server has revoked it; None where it has not, or where some holder has taken the record that says so.

        The record is left for the others.
        """
        place = ffi.new("char[]", epitaph.SIZE_MAX)
        part = ffi.new("struct iovec *", {"iov_base": place, "iov_len": ffi.sizeof(place)})
        message = ffi.new("struct msghdr *", {"msg_iov": part, "msg_iovlen": 1})
        # Any holder may have set it, for all, and then each look is at what comes behind the last one.
        no_offset = ffi.new("int *", -1)
        lib.lx_setsockopt(self.number, socket.SOL_SOCKET, _SO_PEEK_OFF, no_offset, ffi.sizeof("int"))
        for _ in range(_LOOKS):
            size = lib.lx_recvmsg(self.number, message, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            if size >= 0:
                return epitaph.unpack(ffi.buffer(place, size)[:])
        return None


def home_of(door: Door) -> Home | None:
    """The entrypoint that the door leads to, if it is one of this process and serves, or may yet."""
    return door.home() if door.home is not None else None


def _close(place: list[int], key: int, sender: DoorSender | None) -> None:
    if sender is not None:
        sender.let_door_go(key)
    if place[0] >= 0:
        # A stranger's queue may hold what takes long to close.
        reaper.close_socket(Descriptor(place[0]), sender.closing if sender is not None else None)


def _close_own(place: list[int], _key: int, _sender: None) -> None:
    # Nobody but the entrypoint can have put anything into its queue.
    lib.lx_close(place[0])
