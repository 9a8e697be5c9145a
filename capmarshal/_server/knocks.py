"""What knocks bring, at any of a server's doors: channels, of which those are admitted for which there is room."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from capmarshal._capabilities.space import space
from capmarshal._descriptors import inbox, private, reaper
from capmarshal._descriptors.private import Private
from capmarshal._kernel.native import NOW, ffi, lib
from capmarshal._protocol import wire

if TYPE_CHECKING:
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Peer
    from capmarshal._server.closings import Closings
    from capmarshal._server.endings import Endings
    from capmarshal._server.grant import Grant
    from capmarshal._server.journal import Journal
    from capmarshal._server.peers import Peers

# A knock is all head; one byte more shows that it is not.
_KNOCK_ROOM = len(wire.KNOCK_RECORD) + 1


class Knocks:
    """Takes the knocks of one server.

    Args:
        peers: who knocks.
        channels: where new channels go.
        closings: closes what else knocks bring.
        endings: of channels.
        journal: of the entrypoint.
    """

    def __init__(
        self, peers: Peers, channels: Channels, closings: Closings, endings: Endings, journal: Journal
    ) -> None:
        self._peers = peers
        self._channels = channels
        self._closings = closings
        self._endings = endings
        self._journal = journal
        self._inbox = inbox.Inbox(_KNOCK_ROOM)
        self._inbox.struct.wants_pidfd = 1
        self._pidfd_place = ffi.addressof(self._inbox.struct, "pidfd")
        # Of the channel that a knock has just brought, and of who did.
        self._far, self._pidfd = Private(-1), Private(-1)
        # At whose door it did, until that is dealt with; None: at the entrypoint's own.
        self._grant: Grant | None = None

    def must_wait(self, door: Private) -> bool:
        """Whether the next is not to be taken: what came with others of its user that were refused is not closed yet.

        Those behind it, at the same door, wait too: nobody can be let pass, and whoever holds a door may shut it
        anyway.  Those at other doors do not.
        """
        if not self._closings.full:
            return False
        uid = lib.cm_next_user(door.number)
        return uid >= 0 and self._closings.keeps_out(self._peers.user(uid))

    def take(self, door: Private, grant: Grant | None) -> int:
        """Takes one knock, if there is one.

        Args:
            door: the server's end of the door.
            grant: whose door it is; None: the entrypoint's own.

        Returns:
            As ``cm_receive()``, csrc/cm_message.h; -EBADF where the door is closed.
        """
        # A fork in between would leave the child with a copy of the client's far end.
        with private.lock:
            if door.number < 0:
                return -errno.EBADF
            result = lib.cm_receive(door.number, self._inbox.struct, NOW)
            if result <= 0:
                return result
            struct = self._inbox.struct
            lib.cm_above_standard(self._pidfd_place)
            self._pidfd.number, struct.pidfd = struct.pidfd, -1
            if struct.count == 1:
                self._inbox.steal_into(self._far)
        self._admit_or_refuse(grant)
        return result

    def _admit_or_refuse(self, grant: Grant | None) -> None:
        """Deals with the knock in the inbox."""
        self._grant = grant
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
            if not wire.is_knock(self._inbox.data()) or not lib.cm_is_seqpacket(far.number):
                reason = "it is no knock"
            elif space.is_own_door(far.number):
                # Nobody could speak on it, and nobody's end would end it.
                reason = "it is a door, and no channel"
            else:
                reason = self._admit(peer, far, grant)
                if reason:
                    self._closings.hang_up(peer, far)
        if reason:
            refused = self._inbox.steal()
            self._closings.turn_away(peer, [refused, far] if far.number >= 0 else [refused])
            self._journal.warning(peer, "knock", "refused a knock: %s", reason)
        # New ones, if these have found an owner.
        if far.number >= 0:
            self._far = Private(-1)
        self._grant = None

    def _admit(self, peer: Peer, far: Private, grant: Grant | None) -> str:
        """Takes a new channel; or why not."""
        reason = self._channels.refusal(peer)
        if not reason and self._channels.full(peer.user) and not self._make_room(peer) and not peer.own:
            reason = "all channels that there may be are in use (limits.channels)"
        return reason or self._channels.add(far, peer, self._inbox.struct.gid, grant)

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
            self._channels.disown(self._far, self._grant)
        self._far, self._pidfd, self._grant = Private(-1), Private(-1), None
