"""A TCP socket whose closing blocks, for tests of who is held up by that; the fixture lingering makes them."""

from __future__ import annotations

import contextlib
import socket
import struct

from patience import PATIENCE


def make_lingering(seconds):
    """(number, peer): a socket whose close() takes that long, or until peer has read it all. Both are the caller's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
        peer, _ = listener.accept()
    peer.settimeout(PATIENCE)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(bytes(65536))
    # Blocking again: a non-blocking socket does not linger.
    sender.setblocking(True)
    return sender.detach(), peer
