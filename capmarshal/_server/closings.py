"""Closing what clients sent, without waiting for it: what has to wait for that goes on when it is done.

The reaper closes what can block, and says so from a thread of its own: the loop is woken, and goes on from there.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._descriptors import reaper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._descriptors.closing import ClosableFile
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Peer
    from capmarshal._server.shares import Shares

# Why a peer is held back.
_HELD = "its descriptors take long to close"


class Closings:
    """What a server's loop has closed.

    Args:
        channels: whose peers are held back while too much of theirs waits to be closed.
        shares: how much that is.
        wake: makes the loop call :meth:`settle`; called from any thread.
    """

    def __init__(self, channels: Channels, shares: Shares, wake: Callable[[], None]) -> None:
        self._channels = channels
        self._process_most = shares.of_process(shares.closing)
        self._user_most = shares.of_user(shares.closing)
        self._wake = wake
        self._done: deque[tuple[Peer, Callable[[], None] | None]] = deque()

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
        if not things:
            return True
        # The peer is among what is called then: it is remembered as long as something of it is open.
        if reaper.close(things, peer.closing, partial(self._note, peer, then)):
            return True
        if self._too_much(peer):
            self._channels.hold(peer, _HELD)
        return False

    def settle(self) -> None:
        """Goes on with what waited for something that is closed now."""
        while self._done:
            peer, then = self._done.popleft()
            if _HELD in peer.held and not self._too_much(peer):
                self._channels.release(peer, _HELD)
            if then is not None:
                then()

    def _note(self, peer: Peer, then: Callable[[], None] | None) -> None:
        self._done.append((peer, then))
        self._wake()

    def _too_much(self, peer: Peer) -> bool:
        return peer.closing.waiting > self._process_most or peer.user.closing.waiting > self._user_most
