"""What listens, and whoever connects."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from typing import Final

from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe


def listening() -> str:
    """A connection to a socket that listens, of this process's own; under a name that goes with it."""
    name = f"\0capmarshal/doctor/{uuid.uuid4().hex}"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        listener.bind(name)
        listener.listen(1)
        listener.setblocking(False)
        client.connect(name)
        server, _ = listener.accept()
        with server:
            pid = int.from_bytes(server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    if pid != os.getpid():
        raise Lacking("SO_PEERCRED names another process")
    return "socket, bind, listen, connect, accept"


PROBES: Final = (
    Probe(
        "services",
        "listening and connecting",
        listening,
        Level.LESS,
        "no service: Entrypoint.listen() and cm.connect() are refused; what is inherited, by cm.spawn(), goes on",
        call="socket, bind, listen, connect, accept4",
    ),
)
