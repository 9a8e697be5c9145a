"""Capabilities that were handed over to who has connected, and are not taken yet: in flight, on this process's account.

Whoever connects and never reads keeps a descriptor in flight, connection or not: nobody can take that back.  So the
server keeps its end of each such connection to see when it is over, and while there are too many, of a user or over
all, nobody is handed anything.

What a client says is taken all the same, and closed: its own end may be in it, and would keep the connection for ever.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from capmarshal._kernel.errors import KernelError
from capmarshal._server.clients import all_received
from capmarshal._server.hanging_up import hang_up
from capmarshal._server.timers import Again

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.clients import Peer, User
    from capmarshal._server.closings import Closings
    from capmarshal._server.dispatch import Asked
    from capmarshal._server.shares import Shares
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers

# Nanoseconds between two looks at connections that have something else to say than that they are over.
_LOOK_AGAIN = 1_000_000_000
# Records that are taken in such a look, from all of them.
_HEARD = 256


class _Handover:
    """One connection.

    Attributes:
        asking: what it gets; None when that is told.
        connection: the server's end.
        peer: who has connected.
        slot: that it is watched in; 0 if it is not.
    """

    __slots__ = ("asking", "connection", "peer", "slot")

    def __init__(self, connection: Private, peer: Peer) -> None:
        self.connection = connection
        self.peer = peer
        self.slot = 0
        self.asking: Asked | None = None


class Handovers:
    """The connections of one server on which a capability may wait.

    Args:
        slots: of the server.
        timers: of its loop.
        closings: closes what clients have sent on a connection.
        shares: how many there may be.
    """

    def __init__(self, slots: Slots, timers: Timers, closings: Closings, shares: Shares) -> None:
        self._slots = slots
        self._closings = closings
        self._shares = shares
        self._by_user: dict[User, dict[Private, _Handover]] = {}
        # Those that are not watched.
        self._left: set[_Handover] = set()
        self._again = Again(timers, _LOOK_AGAIN, self._look_again)

    def __len__(self) -> int:
        return sum(map(len, self._by_user.values()))

    def __contains__(self, connection: Private) -> bool:
        return any(connection in of_user for of_user in self._by_user.values())

    def refusal(self, peer: Peer) -> str:
        """Why nothing is handed over to a client for now; empty if it may be."""
        bounds = self._shares.handovers
        if len(self._of(peer.user)) >= bounds.user:
            self._sweep(peer.user)
        if (count := len(self._of(peer.user))) >= bounds.user:
            return f"{count} capabilities wait to be taken by processes of user {peer.uid} that have connected before"
        if len(self) >= bounds.whole:
            for user in tuple(self._by_user):
                self._sweep(user)
        if (count := len(self)) >= bounds.whole:
            return f"{count} capabilities wait to be taken by processes that have connected before"
        return ""

    def keep(self, connection: Private, peer: Peer) -> None:
        """Keeps a connection until it is over; takes it."""
        handover = _Handover(connection, peer)
        # First: what Ctrl-C leaves is kept, and looked at when there are too many.
        self._by_user.setdefault(peer.user, {})[connection] = handover
        try:
            handover.slot = self._slots.watch_own(connection, partial(self._tell, handover))
        except KernelError:
            # No memory for it (epoll_ctl(2)).
            self._tell(handover)

    def ask(self, connection: Private, peer: Peer, ask: Callable[[], Asked]) -> None:
        """Keeps a connection while it is asked what its client gets, and no longer than that is there; takes it.

        Args:
            connection: of a client.
            peer: who that is.
            ask: begins to ask; the answer may be there when it returns.
        """
        self.keep(connection, peer)
        # Unless its client has gone.
        if (handover := self._of(peer.user).get(connection)) is not None:
            handover.asking = ask()

    def take_back(self, connection: Private, peer: Peer) -> bool:
        """Gives a connection back whose client is told what it gets; False if that has gone."""
        handover = self._of(peer.user).pop(connection, None)
        if handover is None:
            return False
        self._unwatch(handover)
        self._left.discard(handover)
        return True

    def _of(self, user: User) -> dict[Private, _Handover]:
        return self._by_user.get(user, {})

    def _sweep(self, user: User) -> None:
        """Ends what was taken by clients that keep their ends open."""
        for handover in tuple(self._of(user).values()):
            if handover.asking is None and all_received(handover.connection.number):
                self._end(handover)

    def _tell(self, handover: _Handover) -> None:
        """Ends a connection that has something to say, if that is over.

        Its client may have closed its end this very moment, or shut it down and still not have taken what waits there.
        """
        self._unwatch(handover)
        if all_received(handover.connection.number):
            self._end(handover)
        else:
            self._left.add(handover)
            self._again.begin()
            self._closings.hear(handover.peer, handover.connection, 1)

    def _look_again(self) -> bool:
        """Ends those that are over by now; whether any are left."""
        left = tuple(self._left)
        for handover in left:
            if all_received(handover.connection.number):
                self._end(handover)
            else:
                self._closings.hear(handover.peer, handover.connection, _HEARD // len(left) + 1)
        return bool(self._left)

    def _unwatch(self, handover: _Handover) -> None:
        slot, handover.slot = handover.slot, 0
        if slot:
            self._slots.unwatch_own(slot)

    def _end(self, handover: _Handover) -> None:
        if handover.asking is not None:
            handover.asking.cancel()
        self._unwatch(handover)
        # Its client may have sent what takes long to close.
        self._closings.hang_up(handover.peer, handover.connection, has_connected=True)
        self._left.discard(handover)
        user = handover.peer.user
        self._of(user).pop(handover.connection, None)
        if not self._of(user):
            self._by_user.pop(user, None)

    def tidy(self) -> None:
        """Looks after those that Ctrl-C has kept from being watched, or watched with nobody to tell."""
        for of_user in self._by_user.values():
            for handover in of_user.values():
                if not handover.slot and handover not in self._left:
                    self._slots.unwatch_number(handover.connection.number)
                    self._left.add(handover)
                    self._again.begin()

    def end_asked(self) -> None:
        """Ends those whose clients have not been told what they get: nobody is asked any more."""
        for of_user in tuple(self._by_user.values()):
            for handover in tuple(of_user.values()):
                if handover.asking is not None:
                    self._end(handover)

    def close(self) -> None:
        """Ends all of them: what waits there may be taken all the same."""
        for of_user in tuple(self._by_user.values()):
            for handover in tuple(of_user.values()):
                if handover.asking is not None:
                    handover.asking.cancel()
                self._unwatch(handover)
                hang_up(handover.peer, [handover.connection])
        self._by_user.clear()
        self._left.clear()

    def in_child(self) -> None:
        """Has nothing in a forked child."""
        self._by_user.clear()
        self._left.clear()
