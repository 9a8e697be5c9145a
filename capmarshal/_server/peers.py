"""Who knocks: processes and their users, as the kernel tells them.

A peer is a process, known by its pidfd where the kernel gives one with the knock (SO_PASSPIDFD, Linux 6.5) and pidfds
have an identity (pidfs, Linux 6.9: equal ``st_ino``, equal process); else by process ID and user ID.  The pidfd also
names processes of other pid namespaces, all of which have process ID 0, and tells when the process has ended; where
none comes with the knock, one is opened by process ID.  Above the peer is its user.  Both serve logs and quotas, not
authority.
"""

from __future__ import annotations

import errno
import os
import select
import weakref
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._descriptors.private import make_pidfd
from capmarshal._kernel.errors import KernelError
from capmarshal._kernel.native import NOW, lib
from capmarshal._server.clients import Peer, User

if TYPE_CHECKING:
    from capmarshal._descriptors.private import Private
    from capmarshal._server.shares import Shares

Key: TypeAlias = tuple[int, int]


class Peers:
    """Those that have channels, or doors of theirs that are held.

    Args:
        shares: how much they may have.
        epoll: an epoll set, borrowed, which tells whether pidfds have an identity.
    """

    def __init__(self, shares: Shares, epoll: Private) -> None:
        self._shares = shares
        self._epoll = epoll
        self._by_pidfd: weakref.WeakValueDictionary[int, Peer] = weakref.WeakValueDictionary()
        self._by_pid: weakref.WeakValueDictionary[Key, Peer] = weakref.WeakValueDictionary()
        self._users: weakref.WeakValueDictionary[int, User] = weakref.WeakValueDictionary()

    def knocked(self, pid: int, uid: int, pidfd: Private | None) -> Peer:
        """The one that knocked.

        Args:
            pid: as the knock's credentials say.
            uid: likewise.
            pidfd: of the process, taken; None where the kernel gave none.
        """
        # Before pidfs, all of them share one inode, and epoll sets have it too.
        inode = os.fstat(pidfd.number).st_ino if pidfd is not None else 0
        if pidfd is None or inode == os.fstat(self._epoll.number).st_ino:
            return self._of_credentials(pid, uid, pidfd)
        peer = self._by_pidfd.get(inode)
        if peer is None:
            peer = self._by_pidfd[inode] = Peer(pid, self.user(uid), self._shares)
            if pid:
                self._by_pid[pid, uid] = peer
        if peer.pidfd is None:
            peer.pidfd = pidfd
        else:
            pidfd.close()
        return peer

    def _of_credentials(self, pid: int, uid: int, pidfd: Private | None) -> Peer:
        """The one of that process ID; also where there was no room for its pidfd this time, and it is known by one."""
        peer = self._by_pid.get((pid, uid))
        if peer is not None and peer.pidfd is not None and lib.cm_wait(peer.pidfd.number, select.POLLIN, NOW) > 0:
            # That process has ended, and another has its ID.
            peer = None
        if peer is None:
            peer = self._by_pid[pid, uid] = Peer(pid, self.user(uid), self._shares)
        if peer.pidfd is not None:
            if pidfd is not None:
                pidfd.close()
        elif pidfd is not None:
            peer.pidfd = pidfd
        elif pid:
            self._open(peer)
        return peer

    def _open(self, peer: Peer) -> None:
        """Has a peer known by a pidfd from now on: of whoever has its process ID, so of itself, or it has ended."""
        try:
            peer.pidfd = make_pidfd(peer.pid)
        except KernelError as error:
            # Else the kernel is older than 5.3, a filter refuses it, or there is no room this time.
            peer.ended = error.errno == errno.ESRCH

    def user(self, uid: int) -> User:
        """The one of that number."""
        user = self._users.get(uid)
        if user is None:
            user = self._users[uid] = User(uid)
        return user
