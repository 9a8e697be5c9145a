"""The receiver's end of a door for signals: what lies there is taken, whatever holders have sent.

A signal is a record of which nothing is kept.  All else is no signal: its descriptors go to the reaper, and as soon as
too many of them wait to be closed, the door is shut, as any of its holders could have done by shutdown(2).
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import private, reaper
from capmarshal._descriptors.closing_jobs import Sender
from capmarshal._descriptors.private import Private
from capmarshal._kernel.errors import error_for
from capmarshal._kernel.native import DESCRIPTORS_MAX, NOW, lib
from capmarshal._protocol.wire import HEAD_SIZE, SIGNAL_RECORD

if TYPE_CHECKING:
    from capmarshal._descriptors.descriptor_list import DescriptorList

# Descriptors that may wait to be closed: those of one record.
_PILE = DESCRIPTORS_MAX

# Of ours, for what recvmsg(2) says by an empty record, and more.
_ENDED = -errno.ESHUTDOWN
_NOTHING = (-errno.EAGAIN, -errno.EINTR, _ENDED)

_SHUT = "all who held the signal have gone, or one of them has shut it (shutdown(2))"
_PILED = "one of its holders sends descriptors that take long to close, and it was shut"


class SignalEnd:
    """Such an end.

    Args:
        end: taken.

    Attributes:
        end: as given.
        over: why nothing will come any more; empty as long as something may.
        junk: something has come that is no signal.
    """

    __slots__ = ("_sender", "end", "junk", "over")

    def __init__(self, end: Private) -> None:
        self.end = end
        self.over = ""
        self.junk = False
        self._sender = Sender()

    def take(self, most: int) -> int:
        """Takes what lies there, and waits for nothing; how many were signals.

        Args:
            most: records that are taken at a time.
        """
        signals, inbox = 0, _inbox.borrow()
        for _ in range(most):
            result, came = self._receive(inbox)
            if result in _NOTHING:
                break
            if result < 0:
                raise error_for(-result, "receiving a signal", "recvmsg(2)")
            if came is None:
                signals += 1
                continue
            self.junk = True
            if came:
                reaper.close([came], self._sender)
                if self._sender.waiting > _PILE:
                    self.over = _PILED
                    lib.lx_shutdown(self.end.number, socket.SHUT_RDWR)
                # Even those that are closed on the spot take a while.
                break
        _inbox.give_back(inbox)
        return signals

    def _receive(self, inbox: _inbox.Inbox) -> tuple[int, DescriptorList | None]:
        """Takes one record: as cm_receive(), or that nothing more comes; and, if it is no signal, its descriptors."""
        # A fork in between would leave the child with copies; and nobody closes the end meanwhile.
        with private.lock:
            if self.end.number < 0 or self.over:
                return _ENDED, None
            result = lib.cm_receive(self.end.number, inbox.struct, NOW)
            if result == 0 and max(lib.cm_wait(self.end.number, select.POLLRDHUP, NOW), 0) & select.POLLRDHUP:
                self.over = _SHUT
                return _ENDED, None
            return result, None if result < 0 or _is_signal(inbox) else inbox.steal()

    def close(self) -> None:
        """Closes it, from any thread.  Does nothing the second time."""
        heir = Private(-1)
        with private.lock:
            heir.number, self.end.number = self.end.number, -1
        if heir.number >= 0:
            # Who sends is told at once; its queue may hold what takes long to close.
            lib.lx_shutdown(heir.number, socket.SHUT_RDWR)
            reaper.close([heir])


def _is_signal(inbox: _inbox.Inbox) -> bool:
    return inbox.size[0] == HEAD_SIZE and not inbox.count[0] and not inbox.struct.lost and inbox.data() == SIGNAL_RECORD
