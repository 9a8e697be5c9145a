"""Which socket a descriptor is: by the kernel's own identity of it, and by the name that people read.

The cookie (``SO_COOKIE``) is equal in every process and never reused while the machine is up, and nobody can choose it.
The name that ``getpeername`` gives is for people: whoever likes may have the same.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from capmarshal._kernel.errors import KernelError, printable
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

NAME_PREFIX = "capmarshal/"

# getsockname(2) of an abstract or path name may report up to 111 bytes.
_ADDRESS_ROOM = 128
_FAMILY_SIZE = 2

# include/uapi/asm-generic/socket.h; Python has no name for it.
_SO_COOKIE = 57
_COOKIE_SIZE = 8


def _address(call: Callable[[int, Any, Any], int], number: int) -> bytes | None:
    """A socket's own or its peer's name, without the family: empty if it has none, None if it has no peer."""
    room = ffi.new("char[]", _ADDRESS_ROOM)
    length = ffi.new("unsigned int *", _ADDRESS_ROOM)
    if call(number, room, length) < 0:
        return None
    return bytes(ffi.buffer(room, min(length[0], _ADDRESS_ROOM)))[_FAMILY_SIZE:]


def is_seqpacket(number: int) -> bool:
    """Whether a descriptor is an AF_UNIX SEQPACKET socket."""
    is_unix = lib.cm_socket_option(number, socket.SO_DOMAIN) == socket.AF_UNIX
    return is_unix and lib.cm_socket_option(number, socket.SO_TYPE) == socket.SOCK_SEQPACKET


def peer_name(number: int) -> str | None:
    """What ``getpeername`` says of a door's client end, as text; empty for a nameless door, None for what has no peer.

    A stranger may have chosen it, so what is not printable in it is escaped.
    """
    address = _address(lib.lx_getpeername, number)
    return None if address is None else printable(address.removeprefix(b"\0").decode("utf-8", "backslashreplace"))


def label_in(name: str) -> str:
    """What its server called the entrypoint whose door has this name; empty for a nameless door."""
    return name.removeprefix(NAME_PREFIX).rpartition("/")[0]


def cookies_of(numbers: list[int]) -> list[int]:
    """The cookie of each AF_UNIX SEQPACKET socket, 0 for any other descriptor."""
    cookies = ffi.new("uint64_t[]", len(numbers))
    lib.cm_identify(numbers, len(numbers), cookies)
    return ffi.unpack(cookies, len(numbers)) if numbers else []


def require_cookies(number: int) -> None:
    """Asks for a socket's cookie, without which no door can be told from another.

    Raises:
        KernelError: it is refused.
    """
    cookie, length = ffi.new("char[]", _COOKIE_SIZE), ffi.new("unsigned int *", _COOKIE_SIZE)
    result = lib.lx_getsockopt(number, socket.SOL_SOCKET, _SO_COOKIE, cookie, length)
    if result < 0:
        raise KernelError(
            -result,
            f"asking for a socket's cookie (SO_COOKIE): {os.strerror(-result)}: an emulator or a filter refuses "
            "what every Linux since 4.12 tells, and sockets are known by it",
        )
