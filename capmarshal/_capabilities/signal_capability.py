"""Signal: the right to tell one receiver that something has happened, and to pass that right on.

It travels as any capability does: its door is its own, and its badge says that nothing else goes through that.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from capmarshal._capabilities.capability import (
    PROXY_CLASSES,
    SIGNALS,
    Capability,
    Delegable,
    Proxy,
    open_door_of,
)
from capmarshal._capabilities.space import space
from capmarshal._descriptors import private
from capmarshal._kernel.errors import Disconnected, error_for
from capmarshal._kernel.native import ffi, lib
from capmarshal._protocol.wire import SIGNAL_BADGE, SIGNAL_RECORD

if TYPE_CHECKING:
    from capmarshal._capabilities.door import Door
    from capmarshal._descriptors.private import Private

# What the receiver is told, or none is needed: its queue is full, so that it will look there anyway.
_SENT = (0, -errno.EAGAIN)
_GONE = (-errno.EPIPE, -errno.ECONNRESET)


class Signal(Delegable):
    """The right to tell one receiver that something has happened, and to pass that right on; no more is ever said.

    Given by :attr:`SignalReceiver.signal` and :meth:`Entrypoint.on_signal`.  It stands wherever a capability may: as an
    argument or a result, annotated ``Signal``, and in what is handed over, of which ``cast(Signal)`` makes one.
    """

    _capability: Capability

    # What is cast is made without this.
    def __init__(self) -> None:
        raise TypeError("a Signal is what SignalReceiver.signal and Entrypoint.on_signal() give, or was received")

    def send(self) -> None:
        """Tells the receiver, and never waits: not for it to look, nor for room.

        How often is not told: what was sent before the receiver looks is one.  From any thread, from a signal handler
        of Python's and from within a method; in an event loop likewise, where nothing is awaited.

        Raises:
            Disconnected: the receiver is gone, or another holder has shut the door (shutdown(2)); nothing was sent.
            Closed: the capability is closed.
        """
        # Held as long as it is sent.
        door = open_door_of(self._capability)
        result = send(door)
        if result in _GONE:
            raise Disconnected("the receiver of the signal is gone", ran="no")
        if result not in _SENT:
            raise error_for(-result, "sending a signal")


def send(door: Door) -> int:
    """Puts one signal into the queue of a door, where there is room; 0 or -errno."""
    return lib.cm_send_record(door.number, SIGNAL_RECORD, len(SIGNAL_RECORD), (), 0)


class _Sender(Proxy, Signal):
    """What a capability is cast to."""

    def __repr__(self) -> str:
        return f"<Signal of {self._capability!r}>"


_Sender.__name__ = _Sender.__qualname__ = Signal.__name__
for _name in (SIGNALS, *PROXY_CLASSES):
    # Whoever casts finds it there, and makes none.
    setattr(Signal, _name, _Sender)
del _name


def make_signal_door() -> tuple[Private, Capability]:
    """A door for signals: the receiver's end, which is this process's alone, and the capability.

    Its queue is as short as the kernel lets it be, so that what waits there costs next to nothing.  Who holds it may
    lengthen that, as far as net.core.wmem_max goes: memory of the kernel's, on the account of who sends.

    Raises:
        TableFull, KernelError: nothing was made.
    """
    end, client_end = private.make_pair("making a door for signals")
    with private.lock:
        try:
            size = ffi.new("int *", 0)
            # Where a filter refuses that, the queue is of the usual length.
            lib.lx_setsockopt(client_end.number, socket.SOL_SOCKET, socket.SO_SNDBUF, size, ffi.sizeof("int"))
            door = space.receive_door(client_end.release(), None)
        except BaseException:
            end.close()
            client_end.close()
            raise
        return end, space.capability(door, SIGNAL_BADGE)
