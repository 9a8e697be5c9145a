"""What a peer is told to do, and says: a record of JSON each way, over a socket that has nothing to do with calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

# Bytes: what is told names a method, and what is said at most all descriptors.
_ROOM = 1 << 18


def tell(control: socket.socket, **what: Any) -> None:
    """Sends a record.

    Raises:
        OSError: the other end has gone, or does not read.
    """
    control.sendall(json.dumps(what).encode())


def hear(control: socket.socket) -> dict[str, Any] | None:
    """The next record; None at the end.

    Raises:
        OSError: none comes in time.
    """
    try:
        record = control.recv(_ROOM)
    except ConnectionResetError:
        # Told once, before all that was sent, where the other end was closed with something unread: unix(7).
        record = control.recv(_ROOM)
    if not record:
        return None
    heard: dict[str, Any] = json.loads(record)
    return heard
