"""Which socket a descriptor is: by the kernel's own identity of it, and by the name that people read.

The cookie (``SO_COOKIE``) is equal in every process and never reused while the machine is up, and nobody can choose it.
Where a filter refuses to tell it, a socket is found by its inode; that is used again, so the kernel is asked whether
both are the same open file.  The name that ``getpeername`` gives is for people: whoever likes may have the same.
"""

from __future__ import annotations

import errno

from capmarshal._kernel.errors import printable
from capmarshal._kernel.native import ffi, lib

NAME_PREFIX = "capmarshal/"
# What the last part of a name begins with where the label is a grant's, and else of random digits.
GRANTS = "grant-"

# getsockname(2) of an abstract or path name may report up to 111 bytes.
_ADDRESS_ROOM = 128
_FAMILY_SIZE = 2


def peer_name(number: int) -> str | None:
    """What ``getpeername`` says of a door's client end, as text; empty for a nameless door, None for what has no peer.

    A stranger may have chosen it, so what is not printable in it is escaped.  Where a filter refuses to tell it, every
    door is nameless.
    """
    room = ffi.new("char[]", _ADDRESS_ROOM)
    length = ffi.new("unsigned int *", _ADDRESS_ROOM)
    result = lib.lx_getpeername(number, room, length)
    if result < 0:
        return None if result == -errno.ENOTCONN else ""
    address = bytes(ffi.buffer(room, min(length[0], _ADDRESS_ROOM)))[_FAMILY_SIZE:]
    return printable(address.removeprefix(b"\0").decode("utf-8", "backslashreplace"))


def label_in(name: str) -> str:
    """What its server called the entrypoint, or the grant, whose door has this name; empty for a nameless door."""
    return name.removeprefix(NAME_PREFIX).rpartition("/")[0]


def whose_in(name: str) -> str:
    """Whose door has this name, for people: an entrypoint's or a grant's, with its label."""
    label, _, last = name.removeprefix(NAME_PREFIX).rpartition("/")
    return f"{'grant' if last.startswith(GRANTS) else 'entrypoint'} {label!r}"
