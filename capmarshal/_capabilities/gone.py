"""Waiting for a server to go: its end of the door hangs up, however it went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._capabilities.capability import Capability, Delegable, open_door_of
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.space import capability_of
from capmarshal._kernel.deadline import after, words_for
from capmarshal._kernel.errors import CallTimeout
from capmarshal._kernel.native import NOW
from capmarshal._kernel.waiting import becomes_ready

if TYPE_CHECKING:
    from typing import TypeAlias

    from capmarshal._capabilities.door import Door

    # A proxy or a managed object is told from what is neither at run time only.
    What: TypeAlias = Capability | Delegable

WAITING = "waiting for a server to go"


def wait_gone(what: What, timeout: float | None = None) -> None:
    """Waits until the server of a capability is gone: see :attr:`Capability.gone`.

    The capability may be closed meanwhile, by another thread: the server is waited for all the same.

    Args:
        what: a capability, a proxy, or a managed object of this process.
        timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.

    Raises:
        CallTimeout: it is still there.
        Closed: the capability is closed.
        TypeError: it is none of these.
        ValueError: no time to wait.
        RuntimeError: it is of this process, and served by this very thread.
    """
    # Held as long as it is polled.
    door = door_behind(what)
    deadline = after(timeout)
    if (
        deadline != NOW
        and (home := home_of(door)) is not None
        and (why := home.never_while_blocked("aio.wait_gone(...)"))
    ):
        raise RuntimeError(f"{waiting_for(door)} {why}")
    if not becomes_ready(door.number, 0, deadline, WAITING):
        raise still_there(door, timeout, deadline)


def waiting_for(door: Door) -> str:
    """What is done here, for people."""
    return f"waiting for {door.whose} to go"


def door_behind(what: What) -> Door:
    """The door of what :func:`wait_gone` takes, which it says what it raises for."""
    if not isinstance(what, (Capability, Delegable)):
        raise TypeError(f"a capability, a proxy or a managed object has a server, not {what!r}")
    return open_door_of(what if isinstance(what, Capability) else capability_of(what))


def still_there(door: Door, timeout: float | None, deadline: int) -> CallTimeout:
    """The error for a server that has not gone in time."""
    return CallTimeout(f"{door.whose} has not gone {words_for(timeout, deadline)}", ran="no")
