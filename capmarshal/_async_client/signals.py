"""Waiting for a signal, awaited."""

from __future__ import annotations

import contextlib
import select

import anyio.lowlevel

from capmarshal._async_client.waiting import awaited
from capmarshal._capabilities.signal_capability import Signal
from capmarshal._capabilities.signal_receiver import SignalReceiver, held, receiving
from capmarshal._descriptors.private import make_epoll_set
from capmarshal._kernel.errors import WATCHING, check
from capmarshal._kernel.native import ffi, lib


async def wait_signal(receiver: SignalReceiver, timeout: float | None = None) -> int:
    """As :meth:`capmarshal.SignalReceiver.wait`, awaited: the same result, the same errors.

    Several tasks may wait.  One that is cancelled has taken nothing.

    Args:
        receiver: for which signals are to come.
        timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.

    Raises:
        TableFull: besides, there is no room for a descriptor of its own.
        TypeError: likewise, it is no receiver.
    """
    kind: type = type(receiver)
    if not issubclass(kind, SignalReceiver):
        hint = ", which is what it is sent by" if issubclass(kind, Signal) else ""
        raise TypeError(f"a signal is waited for by its cm.SignalReceiver, not by {receiver!r}{hint}")
    await anyio.lowlevel.checkpoint()
    # An event loop has one place for each number: by an epoll set of its own, several may wait.
    with held(receiver) as number, contextlib.closing(make_epoll_set()) as watched:
        event = ffi.new("struct epoll_event *", (select.EPOLLIN, (0,)))
        check(lib.lx_epoll_ctl(watched.number, lib.EPOLL_CTL_ADD, number, event), "waiting for a signal", WATCHING)
        return await awaited(receiving(receiver, timeout, watched.number))
