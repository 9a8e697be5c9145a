"""The server of bench/transfer.py: started by it, holds nothing but the capability to hand its object in."""

from __future__ import annotations

import contextlib
import socket  # noqa: TC003 - capmarshal reads the annotations
import threading

import measuring
import peers

import capmarshal as cm
from capmarshal import _reaper

# Whoever hands over more than this by value needs the memory several times: what goes beyond is for a Dataspace.
INLINE_MAX = 256 << 20
DESCRIPTORS_MAX = 4096
# Of the record around the bytes: bench/transfer.py calls with nothing else in it.
_AROUND = 4096
# Seconds; reached only when something is wrong.
_PATIENCE = 60.0


class Sink(cm.Interface):
    """What is handed over to: each method says what arrived."""

    @cm.method
    def take_bytes(self, data: bytes) -> tuple[int, int]:
        """Takes bytes by value."""

    @cm.method
    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        """Takes bytes as a dataspace."""

    @cm.method
    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]:
        """Takes descriptors."""

    @cm.method
    def settle(self) -> None:
        """Returns when everything that arrived in earlier calls is closed."""

    @cm.method
    def run_on(self, cpu: int) -> None:
        """Has this process run on one core from here on."""

    @cm.method
    def serve_peer(self, name: str, far: socket.socket, password: bytes) -> None:
        """Has a thread serve one of the peers."""


class SinkServer(Sink):
    """Looks at what it is given; the call closes that."""

    def take_bytes(self, data: bytes) -> tuple[int, int]:
        """Takes bytes by value."""
        return peers.look_at_bytes(data)

    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        """Takes bytes as a dataspace; reads one of them."""
        return peers.look_at_bytes(data.view())

    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]:
        """Takes descriptors."""
        return peers.look_at_descriptors([descriptor.fileno() for descriptor in descriptors])

    def settle(self) -> None:
        """Returns when everything that arrived in earlier calls is closed."""
        if not _reaper.wait(_PATIENCE):
            raise TimeoutError("the server does not come to closing what it got")

    def run_on(self, cpu: int) -> None:
        """Has this process run on one core from here on."""
        measuring.run_on(cpu)

    def serve_peer(self, name: str, far: socket.socket, password: bytes) -> None:
        """Has a thread serve one of the peers."""
        peers.share_password(password)
        threading.Thread(target=_serve, args=(name, cm.keep(far)), name=name, daemon=True).start()


def _serve(name: str, far: socket.socket) -> None:
    with far, contextlib.suppress(EOFError):
        peers.PEERS[name].serve(far)


if __name__ == "__main__":
    measuring.serve(
        cm.Entrypoint("sink", max_bytes=INLINE_MAX + _AROUND, max_descriptors=DESCRIPTORS_MAX), SinkServer()
    )
