"""Connecting to a service, and waiting for a server to go, awaited."""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING

import anyio.lowlevel

from capmarshal._async_client.waiting import awaited, happens
from capmarshal._capabilities import connecting
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.gone import WAITING, door_behind, still_there, waiting_for
from capmarshal._descriptors.private import make_epoll_set
from capmarshal._kernel.deadline import after
from capmarshal._kernel.errors import WATCHING, check
from capmarshal._kernel.native import NOW, ffi, lib
from capmarshal._kernel.waiting import Wait

if TYPE_CHECKING:
    from capmarshal._capabilities.capability import Capability
    from capmarshal._capabilities.door import Door
    from capmarshal._capabilities.gone import What
    from capmarshal._descriptors.socket_paths import StrOrBytesPath


async def connect(path: StrOrBytesPath, timeout: float | None = None) -> Capability:
    """As :func:`capmarshal.connect`, awaited: the same arguments, the same errors."""
    await anyio.lowlevel.checkpoint()
    return await awaited(connecting.connecting(path, timeout, blocks=False))


async def wait_gone(what: What, timeout: float | None = None) -> None:
    """As :func:`capmarshal.wait_gone`, awaited: the same arguments, the same errors.

    Raises:
        TableFull: besides, there is no room for a descriptor of its own.
        RuntimeError: as there, where that is not in this event loop.
    """
    door = door_behind(what)
    deadline = after(timeout)
    if deadline != NOW and (home := home_of(door)) is not None and (why := home.never_while_awaited()):
        raise RuntimeError(f"{waiting_for(door)} {why}")
    await anyio.lowlevel.checkpoint()
    if not await _hangs_up(door, deadline):
        raise still_there(door, timeout, deadline)


async def _hangs_up(door: Door, deadline: int) -> bool:
    """Waits until it does; False if it does not in time.

    By an epoll set that has nothing but the door in it, and is this process's alone: the event loop never has the door
    itself.
    """
    with contextlib.closing(make_epoll_set()) as watched:
        event = ffi.new("struct epoll_event *", (0, (0,)))
        check(lib.lx_epoll_ctl(watched.number, lib.EPOLL_CTL_ADD, door.number, event), WAITING, WATCHING)
        return await happens(Wait(watched.number, select.POLLIN, deadline)) != 0
