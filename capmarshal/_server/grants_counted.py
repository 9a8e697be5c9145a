"""The grants that processes have by a call's result or by connecting, and that somebody can reach still: how many."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capmarshal._descriptors.closing_jobs import Sender
    from capmarshal._server.clients import Peer
    from capmarshal._server.grant import Grant
    from capmarshal._server.shares import Shares


class GrantsCounted:
    """Counts the grants that each process has of one server.  Whoever calls holds the lock of its grants.

    Counted for the process whose call each was the result of, whoever has it now: it is that which can make the server
    open one more door.  This process's own are its own affair.

    Args:
        shares: how many there may be.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._to: dict[Grant, Peer] = {}
        # Of each process, and of each user.
        self._of: dict[Sender, set[Grant]] = {}

    def refusal(self, peer: Peer | None) -> str:
        """Why one more does not go to a process; empty if it does.  None: it is this process, inline."""
        if peer is None or peer.own:
            return ""
        may = self._shares.grants
        for count, most, whom in (
            (len(self._of.get(peer, ())), may.process, f" to {peer.process}"),
            (len(self._of.get(peer.user, ())), may.user, f" to user {peer.uid}"),
            (len(self._to), may.whole, ""),
        ):
            if count >= most:
                return f"{count} objects that went{whom} by themselves can be reached still (limits.grants)"
        return ""

    def counts(self, grant: Grant) -> bool:
        """Whether a grant is among them."""
        return grant in self._to

    def add(self, grant: Grant, peer: Peer | None) -> None:
        """Counts one more."""
        if peer is not None and not peer.own:
            # First: what Ctrl-C leaves half done is found by this, and undone.
            self._to[grant] = peer
            for holder in (peer, peer.user):
                self._of.setdefault(holder, set()).add(grant)

    def remove(self, grant: Grant) -> None:
        """Counts it no more, if it was: it is over."""
        peer = self._to.get(grant)
        if peer is None:
            return
        for holder in (peer, peer.user):
            grants = self._of.get(holder, set())
            grants.discard(grant)
            if not grants:
                self._of.pop(holder, None)
        self._to.pop(grant, None)

    def clear(self) -> None:
        """Counts none any more."""
        self._to.clear()
        self._of.clear()
