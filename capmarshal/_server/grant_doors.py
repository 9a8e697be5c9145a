"""The doors of grants: their server's ends are watched as soon as there are such, and closed when these are over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from capmarshal._descriptors import reaper
from capmarshal._server.doorkeeper import Doorkeeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.grant import Grant
    from capmarshal._server.knocks import Knocks
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers


class GrantDoors:
    """The doors of the grants of one server; in the loop's thread.

    Args:
        knocks: taken at them.
        slots: of the server.
        timers: of its loop.
        ending: whether the server is to end.
        shut: told of a grant at whose door nobody can knock any more; kept by others.
    """

    def __init__(
        self, knocks: Knocks, slots: Slots, timers: Timers, ending: Callable[[], bool], shut: Callable[[Grant], None]
    ) -> None:
        self._knocks, self._slots, self._timers = knocks, slots, timers
        self._ending, self._shut = ending, shut
        # All of them have the turns of one: who holds many and knocks at all would take as many from the others.
        self._turns = slots.add_shared()
        self._doorkeepers: dict[Grant, Doorkeeper] = {}

    def open(self, grant: Grant) -> None:
        """Takes knocks at a door; does nothing the second time."""
        if grant not in self._doorkeepers:
            self._doorkeepers[grant] = Doorkeeper(
                grant.end,
                self._knocks,
                self._slots,
                self._timers,
                self._ending,
                partial(self._shut, grant),
                grant,
                self._turns,
            )
        self._doorkeepers[grant].watch.resume()

    def close(self, grant: Grant) -> None:
        """Closes the server's end of a door; does nothing the second time."""
        doorkeeper = self._doorkeepers.get(grant)
        if doorkeeper is not None:
            doorkeeper.watch.end()
            self._doorkeepers.pop(grant, None)
        if grant.end.number >= 0:
            # Its queue may hold what takes long to close.
            reaper.close([grant.end])

    def in_child(self) -> None:
        """Has none in a forked child."""
        self._doorkeepers.clear()
