"""The server that looks at what it is handed: bytes, dataspaces, descriptors."""

from __future__ import annotations

import capmarshal as cm
from bench import handover, serving

# Whoever hands over more than this by value needs the memory several times: what goes beyond is for a Dataspace.
INLINE_MAX = 256 << 20
DESCRIPTORS_MAX = 4096
# Of the record around the bytes: there is nothing else in it.
_AROUND = 4096


class Sink(serving.Station):
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
    def share_password(self, password: bytes) -> None:
        """Takes what the client's authkey is: see :func:`handover.share_password`."""


class SinkServer(serving.StationServer, Sink):
    """Looks at what it is given; the call closes that."""

    def take_bytes(self, data: bytes) -> tuple[int, int]:
        """Takes bytes by value."""
        return handover.look_at_bytes(data)

    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        """Takes bytes as a dataspace; reads one of them."""
        return handover.look_at_bytes(data.view())

    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]:
        """Takes descriptors."""
        return handover.look_at_descriptors([descriptor.fileno() for descriptor in descriptors])

    def share_password(self, password: bytes) -> None:
        """Takes what the client's authkey is: see :func:`handover.share_password`."""
        handover.share_password(password)


if __name__ == "__main__":
    serving.serve(cm.Entrypoint("sink", max_bytes=INLINE_MAX + _AROUND, max_descriptors=DESCRIPTORS_MAX), SinkServer())
