"""The server's end of one door: has knocks taken, a few in each of its turns, until nobody can knock any more."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from capmarshal._kernel.native import NOW, ffi, lib
from capmarshal._kernel.weakly import weakly
from capmarshal._server.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.grant import Grant
    from capmarshal._server.knocks import Knocks
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers

# include/uapi/asm-generic/socket.h, Linux 6.5; CPython's socket module has no name for it.
_SO_PASSPIDFD = 76

# Taken per turn of the door, so that a flood of knocks leaves turns for calls.
_KNOCKS_AT_ONCE = 2


class Doorkeeper:
    """Opens one door.

    Args:
        door: the server's end, borrowed.
        knocks: takes them.
        slots: of the server.
        timers: of its loop.
        ending: whether the server is to end.
        shut: called when nobody can knock any more.
        grant: whose door it is; None: the entrypoint's own.
        peer: whose turns it takes, as :class:`Watch` has it.

    Attributes:
        door: as given.
        watch: whether knocks are taken.
    """

    def __init__(
        self,
        door: Private,
        knocks: Knocks,
        slots: Slots,
        timers: Timers,
        ending: Callable[[], bool],
        shut: Callable[[], None],
        grant: Grant | None = None,
        peer: int = 0,
    ) -> None:
        self.door = door
        self.watch = Watch(slots, timers, ending, door, weakly(self.open, None), peer)
        self._knocks = knocks
        self._shut = shut
        self._grant = grant
        on = ffi.new("int *", 1)
        # Where the kernel is older, the knock's credentials tell.
        lib.lx_setsockopt(door.number, socket.SOL_SOCKET, _SO_PASSPIDFD, on, ffi.sizeof("int"))

    def open(self) -> None:
        """Takes some of the channels that knocks have brought."""
        try:
            self._take_some()
        except Exception:
            # A signal handler's, say, after which service goes on: who has knocked is not to wait for an answer.
            self._knocks.tidy()
            raise

    def _take_some(self) -> None:
        for _ in range(_KNOCKS_AT_ONCE):
            if self._knocks.must_wait(self.door):
                self.watch.pause()
                return
            result = self._knocks.take(self.door, self._grant)
            if result <= 0:
                break
        else:
            return
        # Whose credentials do not come (SO_PASSCRED), an empty record of theirs looks like the end: unix(7).
        if result == 0 and max(lib.cm_wait(self.door.number, select.POLLRDHUP, NOW), 0) & select.POLLRDHUP:
            # All who held it have gone; or one of them has shut it, for all (shutdown(2)); or the server itself.
            # Not before: what Ctrl-C keeps from being told is found again.
            self._shut()
            self.watch.end()
