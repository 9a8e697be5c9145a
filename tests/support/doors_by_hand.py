"""Doors as another process makes them, and receiving capabilities of them as the codec does."""

import os
import socket
import struct

import capmarshal as cm
from capmarshal._capabilities.space import space
from capmarshal._descriptors import reaper as _reaper
from patience import PATIENCE

SO_COOKIE = 57


class Thing(cm.Interface):
    @cm.method
    def use(self) -> None: ...


class ThingServer(Thing):
    def use(self) -> None: ...


def cookie_of(sock):
    return struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]


def pair(label="foreign"):
    """The two ends of a door as another process makes them."""
    server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if label:
        server.bind(f"\0capmarshal/{label}/{os.urandom(8).hex()}")
    return server, client


def receive(sock, badge, peer=None):
    """Receives a capability as the codec does; the kernel's duplicate of ``sock`` is the test's work."""
    descriptor = cm.Descriptor.dup_of(sock)
    try:
        return space.receive(space.receive_door(descriptor, peer), badge)
    finally:
        descriptor.close()


def open_now():
    assert _reaper.wait(PATIENCE)
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - iterdir() would keep a descriptor of its own open
