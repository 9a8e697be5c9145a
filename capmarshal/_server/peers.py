"""Who knocks: processes and their users, as the kernel tells them.

A peer is a process, known by its pidfd where the kernel gives one with the knock (SO_PASSPIDFD, Linux 6.5) and pidfds
have an identity (pidfs, Linux 6.9: equal ``st_ino``, equal process); else by process ID and user ID.  The pidfd also
names processes of other pid namespaces, all of which have process ID 0, and tells when the process has ended.  Above
the peer is its user.  Both serve logs and quotas, not authority.
"""

from __future__ import annotations

import os
import select
import weakref
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._kernel.native import NOW, lib
from capmarshal._server.clients import Peer, User

if TYPE_CHECKING:
    from capmarshal._descriptors.private import Private
    from capmarshal._server.shares import Shares

Key: TypeAlias = tuple[int, int]


def _pidfds_have_identity() -> bool:
    """Whether this kernel's pidfds are of pidfs: before that, they all share one inode, with eventfds too."""
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        eventfd = os.eventfd(0, os.EFD_CLOEXEC)
    except OSError:
        return False
    finally:
        inode = os.fstat(pidfd).st_ino
        os.close(pidfd)
    same = os.fstat(eventfd).st_ino == inode
    os.close(eventfd)
    return not same


class Peers:
    """Those that have channels, or doors of theirs that are held.

    Args:
        shares: how much they may have.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._by_pidfd: weakref.WeakValueDictionary[int, Peer] = weakref.WeakValueDictionary()
        self._by_pid: weakref.WeakValueDictionary[Key, Peer] = weakref.WeakValueDictionary()
        self._users: weakref.WeakValueDictionary[int, User] = weakref.WeakValueDictionary()
        self._identity: bool | None = None

    def knocked(self, pid: int, uid: int, pidfd: Private | None) -> Peer:
        """The one that knocked.

        Args:
            pid: as the knock's credentials say.
            uid: likewise.
            pidfd: of the process, taken; None where the kernel gave none.
        """
        if pidfd is not None and self._identity is None:
            self._identity = _pidfds_have_identity()
        if pidfd is None or not self._identity:
            if pidfd is not None:
                pidfd.close()
            return self._of_credentials(pid, uid)
        inode = os.fstat(pidfd.number).st_ino
        peer = self._by_pidfd.get(inode)
        if peer is None:
            peer = self._by_pidfd[inode] = Peer(pid, self._user(uid), self._shares)
            if pid:
                self._by_pid[pid, uid] = peer
        if peer.pidfd is None:
            peer.pidfd = pidfd
        else:
            pidfd.close()
        return peer

    def _of_credentials(self, pid: int, uid: int) -> Peer:
        """The one of that process ID; also where there was no room for its pidfd this time, and it is known by one."""
        peer = self._by_pid.get((pid, uid))
        if peer is not None and peer.pidfd is not None and lib.cm_wait(peer.pidfd.number, select.POLLIN, NOW) > 0:
            # That process has ended, and another has its ID.
            peer = None
        if peer is None:
            peer = self._by_pid[pid, uid] = Peer(pid, self._user(uid), self._shares)
        return peer

    def _user(self, uid: int) -> User:
        user = self._users.get(uid)
        if user is None:
            user = self._users[uid] = User(uid)
        return user
