"""Closing the server's ends of channels: in batches, for a flood of knocks ends as many channels as it begins.

A channel's queue may hold what takes long to close, so the reaper closes it: on its peer's account where any descriptor
lies there, so that who piles such up gets no new channels.  To hand each over by itself would have a thread of the
reaper wake, and take its turn with the serving thread, for each.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from capmarshal._descriptors import private, reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._kernel.errors import DENIED, KernelError
from capmarshal._kernel.native import lib
from capmarshal._protocol import wire
from capmarshal._server.clients import lies_unread

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.clients import Peer
    from capmarshal._server.timers import Timers

# Ends of one peer's channels that are handed over together, and nanoseconds that one waits for others.
_TOGETHER = 32
_PAUSE = 2_000_000


class HangingUp:
    """Owns the ends that are to be closed until the reaper has them.

    Args:
        timers: of the loop.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._ends: dict[Peer, list[Private]] = {}

    def close(self, peer: Peer, end: Private) -> None:
        """Closes the end of a peer's channel soon; takes it."""
        if not self._ends:
            self._timers.after(_PAUSE, self.now)
        ends = self._ends.setdefault(peer, [])
        ends.append(end)
        if len(ends) == _TOGETHER:
            # One that is empty keeps the timer's place.
            self._ends[peer] = []
            hang_up(peer, ends)

    def now(self) -> None:
        """Has all of them closed: their numbers are wanted, or nobody comes back later."""
        waiting, self._ends = self._ends, {}
        for peer, ends in waiting.items():
            hang_up(peer, ends)


def shut(ends: list[Private]) -> None:
    """Has the other side see the end of sockets whose numbers another thread may be using, so that they stay open.

    Where a filter refuses shutdown(2), a socket that has ended takes the place of each, and it is closed elsewhere.
    """
    denied = [end for end in ends if -lib.lx_shutdown(end.number, socket.SHUT_RDWR) in DENIED]
    if not denied:
        return
    # Without room in the table, they see it when that thread has come back.
    with contextlib.suppress(KernelError):
        ended, other = private.make_pair("ending a channel")
        other.close()
        try:
            for end in denied:
                with private.lock:
                    if end.number < 0:
                        continue
                    closed_elsewhere = private.make_copy(end)
                    os.dup2(ended.number, end.number, inheritable=False)
                reaper.close([closed_elsewhere])
        finally:
            ended.close()


def hang_up(peer: Peer, ends: list[Private], then: Callable[[], None] | None = None) -> bool:
    """Has them closed as one list, in few crossings into C, which leave the interpreter to the serving thread.

    Args:
        peer: who has knocked, and what holds up the closing of these is on the account of.
        ends: taken.
        then: called by a thread of the reaper when the last is closed, unless this returns True.

    Returns:
        Whether all are closed already.
    """
    # Nobody forks between the moment when they are no longer private and that when the reaper knows them.
    with private.lock:
        return reaper.close_ends(DescriptorList.of([end.release() for end in ends]), peer, _tell, then)


def _tell(number: int) -> None:
    """Tells whoever is at the other end of one whose closing has to wait that it has ended.

    And that a call there was not read, as the kernel does where it is closed.
    """
    if lies_unread(number):
        lib.cm_send_record(number, wire.GONE_RECORD, len(wire.GONE_RECORD), (), 0)
    lib.lx_shutdown(number, socket.SHUT_RDWR)
