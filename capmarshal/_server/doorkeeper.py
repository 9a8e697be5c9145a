"""The server's end of a door: takes the channels that knocks bring."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capmarshal._capabilities.identity import cookies_of
from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import private as _private
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.private import Private
from capmarshal._kernel.native import NOW, lib
from capmarshal._protocol import wire as _wire
from capmarshal._server.journal import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.space import Peer
    from capmarshal._server.channels import Clients

# Of the server's epoll set.
SLOT = 0

# Taken per event, so that a flood of knocks leaves turns for calls.
_KNOCKS_AT_ONCE = 16
# A knock is all head; one byte more shows that it is not.
_KNOCK_ROOM = len(_wire.KNOCK_RECORD) + 1
# Nanoseconds between two lines in the log.
_LOG_PAUSE = 1_000_000_000


class Doorkeeper:
    """Opens the door.

    Args:
        door: the server's end, taken.
        clients: where new channels go.
        make_room: gives an idle channel up; whether there was one.
        label: of the entrypoint, for the log.
    """

    def __init__(self, door: Private, clients: Clients, make_room: Callable[[], bool], label: str) -> None:
        self._door = door
        self._clients = clients
        self._make_room = make_room
        self._label = label
        self._inbox = _inbox.Inbox(_KNOCK_ROOM)
        # Of the channel that a knock has just brought.
        self._far = Private(-1)
        self._refusals = self._log_again_at = 0

    def close(self) -> None:
        """Hangs up."""
        # Its queue may hold what takes long to close.
        _reaper.close([self._door])

    def open(self) -> None:
        """Takes the channels that knocks have brought."""
        for _ in range(_KNOCKS_AT_ONCE):
            # A fork in between would leave the child with a copy of the client's far end.
            with _private.lock:
                if self._door.number < 0:
                    return
                result = lib.cm_receive(self._door.number, self._inbox.struct, NOW)
                if result <= 0:
                    break
                if self._inbox.struct.count == 1:
                    self._inbox.steal_into(self._far)
            self._admit()
        else:
            return
        if result == 0:
            # Some holder of the client end has shut it down, for all holders (shutdown(2)).
            log.error("%s: the door was shut by one of its holders; open channels go on", self._label)
            self._clients.unwatch(SLOT)

    def _admit(self) -> None:
        """Takes the channel that the knock in the inbox brought, if it is one."""
        struct, far = self._inbox.struct, self._far
        peer = self._clients.peer(struct.pid, struct.uid)
        if struct.lost & lib.CM_LOST_DESCRIPTORS:
            reason = _inbox.why_lost(self._door.number)
            # The channel is lost, but its client will knock again.
            self._make_room()
        elif self._inbox.data() != _wire.KNOCK_RECORD or not cookies_of([far.number])[0]:
            reason = "it is no knock"
        else:
            reason = self._clients.refusal(peer)
            if not reason and self._clients.full and not self._make_room():
                reason = "all channels that the descriptor table can spare are in use"
            reason = reason or self._clients.add(far, peer)
        if reason:
            if far.number >= 0:
                _reaper.close([far])
            _reaper.close([self._inbox.steal()])
            self._log_refusal(peer, reason)
        self._far = Private(-1)

    def tidy(self) -> None:
        """Leaves nothing half done where Ctrl-C came between two steps."""
        _reaper.close([self._inbox.steal()])
        if self._far.number >= 0:
            self._clients.disown(self._far)
            self._far = Private(-1)

    def _log_refusal(self, peer: Peer, reason: str) -> None:
        """Says so, but not as often as a stranger likes."""
        self._refusals += 1
        now = time.monotonic_ns()
        if now >= self._log_again_at:
            log.warning(
                "%s: refused %d knock(s), the last of process %d (user %d): %s",
                self._label, self._refusals, peer.pid, peer.uid, reason,
            )  # fmt: skip
            self._refusals = 0
            self._log_again_at = now + _LOG_PAUSE
