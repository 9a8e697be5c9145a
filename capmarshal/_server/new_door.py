"""Doors, made: a socket pair whose server's end has a name."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from capmarshal._capabilities.identity import GRANTS, NAME_PREFIX
from capmarshal._capabilities.space import space
from capmarshal._descriptors import private
from capmarshal._kernel.errors import DENIED, check, shortened
from capmarshal._kernel.native import ffi, lib
from capmarshal._protocol.wire import NO_SECRET

if TYPE_CHECKING:
    from capmarshal._capabilities.door import Door, Home
    from capmarshal._descriptors.private import Private

# sun_path has 108 bytes; of a grant's name the prefix, the random part and two separators take 35 (unix(7)).
LABEL_MAX = 64
_RANDOM_SIZE = 8


def check_label(label: str) -> None:
    """Refuses what cannot be part of a door's name.

    Raises:
        TypeError, ValueError: it cannot.
    """
    if not isinstance(label, str):
        raise TypeError(f"a label is text, not {label!r}")
    wrong = f"a label is 1 to {LABEL_MAX} bytes of printable text without a slash"
    if not label or "/" in label or not label.isprintable():
        raise ValueError(f"{wrong}, not {shortened(repr(label))}")
    if (size := len(label.encode())) > LABEL_MAX:
        raise ValueError(f"{wrong}; {shortened(repr(label))} has {size}")


def _bind(server_end: int, label: str, kind: str) -> None:
    """Names a door; nameless where the kernel or a security module refuses, since names are for people."""
    while True:
        name = f"\0{NAME_PREFIX}{label}/{kind}{os.urandom(_RANDOM_SIZE).hex()}".encode()
        address = struct.pack("=H", socket.AF_UNIX) + name
        if lib.lx_bind(server_end, address, len(address)) != -errno.EADDRINUSE:
            return


def make_door(label: str, home: Home, secret: bytes = NO_SECRET, *, grants: bool = False) -> tuple[Private, Door]:
    """A socket pair: the server's end, which is this process's alone, and the door, which is to be delegated.

    Args:
        label: for people.
        home: whose door it is; borrowed.
        secret: of the door.
        grants: the label is a grant's own, and no entrypoint's.
    """
    on = ffi.new("int *", 1)
    server_end, client_end = private.make_pair("making a door")
    door = None
    try:
        with private.lock:
            _bind(server_end.number, label, GRANTS if grants else "")
            # The knock's credentials are the kernel's word for who knocks: SO_PEERCRED of a channel could be relayed.
            # Where a filter refuses that, nobody tells, and all clients are one.
            size = ffi.sizeof("int")
            result = lib.lx_setsockopt(server_end.number, socket.SOL_SOCKET, socket.SO_PASSCRED, on, size)
            if -result not in DENIED:
                check(result, "making a door")
            door = space.add_home(client_end.release(), server_end, home, secret=secret)
        return server_end, door
    except BaseException:
        if door is not None:
            space.remove_home(door.key)
        server_end.close()
        client_end.close()
        raise
