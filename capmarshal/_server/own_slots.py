"""The server's own slots: descriptors that are watched beside the channels, its door among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._kernel.errors import KernelError, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers

# Nanoseconds that no knock is taken where too much waits to be closed.
_PAUSE = 20_000_000


class OwnSlots:
    """Which slots are the server's own, and what is to be done when one of them is readable.

    Args:
        slots: of the server.
        ready: by slot, what is to be done.
    """

    def __init__(self, slots: Slots, ready: dict[int, Callable[[], None]]) -> None:
        self._slots = slots
        self._ready = ready

    def watch(self, owner: Private, ready: Callable[[], None]) -> int:
        """Watches a descriptor; returns its slot.

        Raises:
            KernelError: it cannot be watched.
        """
        peer = self._slots.add_peer()
        slot = self._slots.watch_own(owner.number, peer)
        if slot < 0:
            self._slots.remove_peer(peer)
        check(slot, "watching a descriptor of the server's own")
        self._ready[slot] = ready
        return slot

    def unwatch(self, slot: int) -> None:
        """Watches it no more."""
        peer = self._slots.peer_of(slot)
        self._slots.unwatch(slot)
        self._slots.remove_peer(peer)
        self._ready.pop(slot, None)

    def forget(self, owner: Private) -> None:
        """Has the kernel report it no more, whatever slot it had: Ctrl-C may have come between two steps."""
        self._slots.unwatch_number(owner.number)


class DoorWatch:
    """Whether knocks are taken: the door is watched, paused for a moment, or shut.

    Args:
        own: of the server.
        timers: of its loop.
        ending: whether the server is to end.

    Attributes:
        slot: that the door is watched in; 0 while it is not.
    """

    def __init__(self, own: OwnSlots, timers: Timers, ending: Callable[[], bool]) -> None:
        self._own = own
        self._timers = timers
        self._ending = ending
        self.slot = 0

    def begin(self, door: Private, knocked: Callable[[], None]) -> None:
        """Has knocks taken.

        Raises:
            KernelError: the door cannot be watched.
        """
        self._door, self._knocked = door, knocked
        self.slot = self._own.watch(door, knocked)

    def pause(self) -> None:
        """Takes no knocks for a moment."""
        # First: Ctrl-C must not leave the door shut.
        self._timers.after(_PAUSE, self.resume)
        self.shut()

    def resume(self) -> None:
        """Takes knocks again, if it took none, and is not to end."""
        if not self.slot and not self._ending():
            # Where Ctrl-C came between two steps of this, or of shutting it, somebody still watches.
            self._own.forget(self._door)
            try:
                self.slot = self._own.watch(self._door, self._knocked)
            except KernelError:
                # No memory for it (epoll_ctl(2)), which may pass: the door must not stay shut for that.
                self._timers.after(_PAUSE, self.resume)

    def shut(self) -> None:
        """Takes no more knocks."""
        slot, self.slot = self.slot, 0
        if slot:
            self._own.unwatch(slot)
