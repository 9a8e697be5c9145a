"""Closing what clients sent, without waiting for it: what has to wait for that goes on when it is done.

The reaper closes what can block, and says so from a thread of its own: the loop is woken, and goes on from there.
"""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel.native import NOW, lib
from capmarshal._server.hanging_up import hang_up
from capmarshal._server.timers import Again

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._descriptors.closing import ClosableFile
    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.native import CData
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Peer, User
    from capmarshal._server.timers import Timers

# A process that has no more than that part of what one may have is not held back for what others of its user have; nor
# do newcomers of a user wait whose newcomers have left no more than that part of what a user may.
_FEW = 16

# Nanoseconds between two looks at whether those that are held back may go on.
_LOOK_AGAIN = 20_000_000

# Why a peer is held back.
_HELD = "its descriptors take long to close"


def _newcomers(user: User | None) -> object:
    """What is counted together: what came with a user's knocks that were refused; None: with all who had connected."""
    return "newcomers", user


class Closings:
    """What a server's loop has closed.

    Args:
        turn: the ``struct cm_turn``: before a record is read, C looks whether there is room while something is closed.
        channels: whose peers are held back while too much of theirs waits to be closed.
        timers: of the loop.
        wake: makes the loop call :meth:`settle`; called from any thread.
    """

    def __init__(self, turn: CData, channels: Channels, timers: Timers, wake: Callable[[], None]) -> None:
        self._turn = turn
        self._channels = channels
        self._may = channels.shares.closing
        self._wake = wake
        self._done: deque[tuple[tuple[object, ...], int, Callable[[], None] | None]] = deque()
        # Descriptors that were handed over and are not known to be closed: of all, of each user, and of newcomers.
        self._waiting = 0
        self._of: Counter[object] = Counter()
        # Those of whom no process is read.
        self._over: set[User] = set()
        self._held: set[Peer] = set()
        # Those of other processes of the same user have to do with whether one may go on.
        self._looking = Again(timers, _LOOK_AGAIN, self._release)

    def close(
        self,
        peer: Peer,
        things: Sequence[ClosableFile | DescriptorList],
        then: Callable[[], None] | None = None,
    ) -> bool:
        """Closes what came from a peer; takes it.

        Args:
            peer: who is held back if that takes long.
            things: to be closed.
            then: called by :meth:`settle` when all is closed, unless that is so when this returns.

        Returns:
            Whether all is closed.
        """
        return self._close(peer, things, (peer.user,), then)

    def turn_away(self, peer: Peer, things: Sequence[ClosableFile | DescriptorList]) -> None:
        """Closes what came with a knock that is none; takes it."""
        self._close(peer, things, (peer.user, _newcomers(peer.user)), None)

    def hang_up(self, peer: Peer, end: Private, *, has_connected: bool = False) -> None:
        """Closes an end that has not become a channel, or that of who has connected; takes it."""
        keys = (peer.user, _newcomers(None if has_connected else peer.user))
        if not hang_up(peer, [end], partial(self._note, keys, 1, None)):
            self._count(peer, keys, 1)

    def keeps_out(self, user: User | None) -> bool:
        """Whether newcomers of a user are to wait; None: who connects, for the kernel does not tell before it is taken.

        That is where as many descriptors wait to be closed as may, over all, and more than a few of them are of the
        newcomers of that user who were refused before.  What calls have brought is no reason: who sends more of those
        gets no channels, and an end with nothing in its queue is closed at once.
        """
        return self.full and self._of[_newcomers(user)] > self._may.user // _FEW

    def _close(
        self,
        peer: Peer,
        things: Sequence[ClosableFile | DescriptorList],
        keys: tuple[object, ...],
        then: Callable[[], None] | None,
    ) -> bool:
        count = sum(len(one) if isinstance(one, DescriptorList) else 1 for one in things)
        if not count:
            return True
        if reaper.close(things, peer, partial(self._note, keys, count, then)):
            return True
        self._count(peer, keys, count)
        return False

    def _count(self, peer: Peer, keys: tuple[object, ...], count: int) -> None:
        user = peer.user
        self._waiting += count
        for key in keys:
            self._of[key] += count
        self._turn.scarce = 1
        if self._too_much(peer):
            self._hold(peer)
        if self._is_over(user):
            # One call of each of the others might bring as much again.
            self._over.add(user)
            for each in tuple(user.peers):
                if not each.own:
                    self._hold(each)

    def _hold(self, peer: Peer) -> None:
        self._looking.begin()
        self._held.add(peer)
        self._channels.hold(peer, _HELD)

    def hear(self, peer: Peer, end: Private, most: int) -> None:
        """Takes so many of the records that a peer has sent, where there are as many, and closes what came.

        For an end that is kept and not read: the peer's own may lie in its queue, and would keep both for ever.
        """
        for _ in range(most):
            inbox = Inbox(1)
            # An empty record says no more than the end, and the next look finds what is behind it.
            if self._has_its_share(peer.user) or lib.cm_receive(end.number, inbox.struct, NOW) <= 0:
                return
            self.close(peer, [inbox.steal()])

    def settle(self) -> None:
        """Goes on with what waited for something that is closed now."""
        self._turn.scarce = reaper.behind()
        while self._done:
            keys, count, then = self._done[0]
            if then is not None:
                then()
            # Last: where Ctrl-C comes before, it is done again, and finds that it is not wanted.
            self._done.popleft()
            self._waiting -= count
            for key in keys:
                self._of[key] -= count
                if self._of[key] <= 0:
                    # A user is known as long as somebody keeps it.
                    del self._of[key]
        self._release()

    def _release(self) -> bool:
        """Lets go on whose descriptors are closed; whether others are held back still."""
        self._over = {user for user in self._over if self._is_over(user)}
        for peer in tuple(self._held):
            if not self._too_much(peer):
                self._held.discard(peer)
                self._channels.release(peer, _HELD)
        return bool(self._held)

    @property
    def full(self) -> bool:
        """Whether as many descriptors wait to be closed as may, over all."""
        return self._waiting > self._may.whole

    def _has_its_share(self, user: User) -> bool:
        """Whether so many wait, and more than a few are this user's."""
        return self.full and self._of[user] > self._may.user // _FEW

    def _note(self, keys: tuple[object, ...], count: int, then: Callable[[], None] | None) -> None:
        self._done.append((keys, count, then))
        self._wake()

    def _too_much(self, peer: Peer) -> bool:
        own, of_user, may = peer.waiting, peer.user.waiting, self._may
        if own > may.process or (of_user > may.user and own > may.process // _FEW):
            # Where its user has too many, those of its processes are held back that have more than a few of them.
            return True
        return peer.user in self._over

    def _is_over(self, user: User) -> bool:
        """Whether calls of a user brought as many as all may have, and not mainly one process's did."""
        of_user, may = self._of[user], self._may
        return of_user > may.whole and of_user - max((each.waiting for each in user.peers), default=0) > may.user
