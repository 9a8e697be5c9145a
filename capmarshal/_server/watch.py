"""Where newcomers come, a door or a socket that listens: it is watched, paused for a moment, or left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers

# Nanoseconds that nobody is taken where there is no room.
_PAUSE = 20_000_000


class Watch:
    """The watching of one such descriptor.

    Args:
        slots: of the server.
        timers: of its loop.
        ending: whether the server is to end.
        owner: of the descriptor, borrowed.
        ready: called in a turn of the loop when somebody has come.
        peer: whose turns these are, a place of :meth:`Slots.add_shared`; 0: it has turns of its own.

    Attributes:
        slot: that it is watched in; 0 while it is not.
    """

    __slots__ = ("_ending", "_owner", "_peer", "_ready", "_slots", "_timers", "_unknown", "slot")

    def __init__(
        self,
        slots: Slots,
        timers: Timers,
        ending: Callable[[], bool],
        owner: Private,
        ready: Callable[[], None],
        peer: int = 0,
    ) -> None:
        self.slot = 0
        self._slots = slots
        self._timers = timers
        self._ending = ending
        self._owner = owner
        self._ready = ready
        self._peer = peer
        # Whether it may be watched in a slot that is not known: Ctrl-C came between two steps.
        self._unknown = False

    def begin(self) -> None:
        """Has newcomers taken.

        Raises:
            KernelError: it cannot be watched.
        """
        self._unknown = True
        self.slot = self._slots.watch_own(self._owner, self._ready, self._peer)
        self._unknown = False

    def pause(self) -> None:
        """Takes no newcomers for a moment; they wait."""
        # First: Ctrl-C must not leave it alone for good.
        self._timers.after(_PAUSE, self.resume)
        self.end()

    def resume(self) -> None:
        """Takes newcomers again, if it took none, and neither is it closed nor the server to end."""
        if self.slot or self._ending() or self._owner.number < 0:
            return
        if self._unknown:
            # Looks at all slots there are.
            self._slots.unwatch_number(self._owner.number)
        try:
            self.begin()
        except KernelError:
            # No memory for it (epoll_ctl(2)), which may pass: nobody is to be left alone for that.
            self._timers.after(_PAUSE, self.resume)

    def end(self) -> None:
        """Takes no more newcomers.  Does nothing the second time."""
        if not self.slot:
            return
        self._unknown = True
        slot, self.slot = self.slot, 0
        # The number of one that was closed may be another's by now.
        if self._owner.number >= 0:
            self._slots.unwatch_own(slot)
        self._unknown = False
