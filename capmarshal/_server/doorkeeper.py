"""The server's end of a door: takes the channels that knocks bring, and admits whom there is room for."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from capmarshal._capabilities.space import space
from capmarshal._descriptors import inbox, private, reaper
from capmarshal._descriptors.private import Private
from capmarshal._kernel.native import NOW, ffi, lib
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol import wire
from capmarshal._server.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Peer
    from capmarshal._server.closings import Closings
    from capmarshal._server.endings import Endings
    from capmarshal._server.journal import Journal
    from capmarshal._server.peers import Peers
    from capmarshal._server.timers import Timers

# include/uapi/asm-generic/socket.h, Linux 6.5; CPython's socket module has no name for it.
_SO_PASSPIDFD = 76

# Taken per turn of the door, so that a flood of knocks leaves turns for calls.
_KNOCKS_AT_ONCE = 2
# A knock is all head; one byte more shows that it is not.
_KNOCK_ROOM = len(wire.KNOCK_RECORD) + 1


class Doorkeeper:
    """Opens the door.

    Args:
        door: the server's end, taken if nothing is raised.
        peers: who knocks.
        channels: where new channels go.
        closings: closes what else knocks bring.
        endings: of channels.
        journal: of the entrypoint.
        timers: of the loop.
        ending: whether the server is to end.

    Attributes:
        door: the server's end.
        watch: whether knocks are taken.
    """

    def __init__(
        self,
        door: Private,
        peers: Peers,
        channels: Channels,
        closings: Closings,
        endings: Endings,
        journal: Journal,
        timers: Timers,
        ending: Callable[[], bool],
    ) -> None:
        self.door = door
        self.watch = Watch(channels.slots, timers, ending, door, weakly(self.open, None))
        self._peers = peers
        self._channels = channels
        self._closings = closings
        self._endings = endings
        self._journal = journal
        self._ending = ending
        self._inbox = inbox.Inbox(_KNOCK_ROOM)
        # With room for no more, 253 descriptors of junk are gone six times as quickly.
        self._inbox.struct.most = 1
        self._inbox.struct.wants_pidfd = 1
        self._pidfd_place = ffi.addressof(self._inbox.struct, "pidfd")
        on = ffi.new("int *", 1)
        # Where the kernel is older, the knock's credentials tell.
        lib.lx_setsockopt(door.number, socket.SOL_SOCKET, _SO_PASSPIDFD, on, ffi.sizeof("int"))
        # Of the channel that a knock has just brought, and of who did.
        self._far, self._pidfd = Private(-1), Private(-1)

    def open(self) -> None:
        """Takes some of the channels that knocks have brought."""
        try:
            self._take_some()
        except Exception:
            # A signal handler's, say, after which service goes on: who has knocked is not to wait for an answer.
            self.tidy()
            raise

    def _take_some(self) -> None:
        if self._closings.full:
            # What is wrong with a knock is told only when its descriptors have come, and have to be closed.
            self.watch.pause()
            return
        for _ in range(_KNOCKS_AT_ONCE):
            # A fork in between would leave the child with a copy of the client's far end.
            with private.lock:
                if self.door.number < 0:
                    return
                result = lib.cm_receive(self.door.number, self._inbox.struct, NOW)
                if result <= 0:
                    break
                struct = self._inbox.struct
                lib.cm_above_standard(self._pidfd_place)
                self._pidfd.number, struct.pidfd = struct.pidfd, -1
                if struct.count == 1:
                    self._inbox.steal_into(self._far)
            self._receive()
        else:
            return
        # Whose credentials do not come (SO_PASSCRED), an empty record of theirs looks like the end: unix(7).
        if result == 0 and max(lib.cm_wait(self.door.number, select.POLLRDHUP, NOW), 0) & select.POLLRDHUP:
            # By the server, where that found it running; else some holder of the client end has (shutdown(2)).
            if not self._ending():
                self._journal.error(None, "shut", "the door was shut by one of its holders; open channels go on")
            self.watch.end()

    def _receive(self) -> None:
        """Deals with the knock in the inbox."""
        struct, far = self._inbox.struct, self._far
        # From here on the peer's, or nobody's: what is tidied up after Ctrl-C must not be what is watched.
        pidfd, self._pidfd = self._pidfd, Private(-1)
        peer = self._peers.knocked(struct.pid, struct.uid, pidfd if pidfd.number >= 0 else None)
        if struct.lost & lib.CM_LOST_DESCRIPTORS and not struct.count and far.number < 0:
            reason = inbox.why_lost()
            # The channel is lost, but its client will knock again.
            if not self._make_room(peer):
                self._endings.give_up_hoard()
        else:
            if self._inbox.data() != wire.KNOCK_RECORD or not lib.cm_is_seqpacket(far.number):
                reason = "it is no knock"
            elif space.is_own_door(far.number):
                # Nobody could speak on it, and nobody's end would end it.
                reason = "it is a door, and no channel"
            else:
                reason = self._admit(peer, far)
        if reason:
            refused = self._inbox.steal()
            self._closings.close(peer, [refused, far] if far.number >= 0 else [refused])
            self._journal.warning(peer, "knock", "refused a knock: %s", reason)
        # New ones, if these have found an owner.
        if far.number >= 0:
            self._far = Private(-1)

    def _admit(self, peer: Peer, far: Private) -> str:
        """Takes a new channel; or why not."""
        reason = self._channels.refusal(peer)
        if not reason and self._channels.full(peer.user) and not self._make_room(peer) and not peer.own:
            reason = "all channels that there may be are in use (limits.channels)"
        return reason or self._channels.add(far, peer)

    def _make_room(self, newcomer: Peer) -> bool:
        channel = self._channels.spare(newcomer)
        if channel is None:
            return False
        self._endings.give_up(channel)
        return True

    def tidy(self) -> None:
        """Leaves nothing half done where Ctrl-C came between two steps."""
        if self._inbox.struct.pidfd > 0:
            self._pidfd.number, self._inbox.struct.pidfd = self._inbox.struct.pidfd, -1
        self._pidfd.close()
        reaper.close([self._inbox.steal()])
        if self._far.number >= 0:
            self._channels.disown(self._far)
        self._far, self._pidfd = Private(-1), Private(-1)
