"""Raw Linux system calls on sockets: each function is one system call and returns -errno, never raises.

This is the floor that capmarshal stands on, for people who want just that, on any AF_UNIX socket.  There is no
libc in between, no retry on EINTR, no state; libc's ``errno`` is untouched.  A result of 0 or more is the
kernel's; a negative one is an errno, negated: ``errno.errorcode[-result]`` names it.

Descriptors are plain ints here, and whoever calls owns them: nothing closes them for you, and nothing adds
``SOCK_CLOEXEC`` or ``MSG_CMSG_CLOEXEC`` to the flags that you pass.  Memory for the kernel to read or write is
made with ``lx.ffi`` (see the documentation of cffi) and borrowed for the time of the call::

    pair = lx.ffi.new("int[2]")
    result = lx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC, 0, pair)
    if result < 0:
        raise OSError(-result, os.strerror(-result))

Types known to ``lx.ffi``: ``struct msghdr``, ``struct iovec``, ``struct epoll_event``, ``struct pollfd``,
``struct timespec``, ``struct stat`` and C's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from capmarshal._kernel.native import CData

__all__ = [
    "bind",
    "close",
    "connect",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "fcntl",
    "ffi",
    "fstat",
    "getpeername",
    "getsockname",
    "getsockopt",
    "mmap",
    "munmap",
    "ppoll",
    "recvmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "socketpair",
]


def socket(domain: int, type: int, protocol: int) -> int:  # noqa: A002 - the name in socket(2)
    """socket(2): the new descriptor, or -errno."""
    return lib.lx_socket(domain, type, protocol)


def socketpair(domain: int, type: int, protocol: int, pair: CData) -> int:  # noqa: A002 - as above
    """socketpair(2): 0 and two descriptors in ``pair`` (``int[2]``), or -errno."""
    return lib.lx_socketpair(domain, type, protocol, pair)


def bind(socket: int, address: CData | bytes, length: int) -> int:
    """bind(2): 0 or -errno.  ``address`` is a ``sockaddr`` of ``length`` bytes."""
    return lib.lx_bind(socket, address, length)


def connect(socket: int, address: CData | bytes, length: int) -> int:
    """connect(2): 0 or -errno.  ``address`` is a ``sockaddr`` of ``length`` bytes."""
    return lib.lx_connect(socket, address, length)


def getsockname(socket: int, address: CData, length: CData) -> int:
    """getsockname(2): 0 or -errno.  ``length`` (``unsigned int *``) holds the room, then the size of the name."""
    return lib.lx_getsockname(socket, address, length)


def getpeername(socket: int, address: CData, length: CData) -> int:
    """getpeername(2): 0 or -errno.  ``length`` (``unsigned int *``) holds the room, then the size of the name."""
    return lib.lx_getpeername(socket, address, length)


def sendto(socket: int, data: CData | bytes, size: int, flags: int, address: CData | bytes, length: int) -> int:
    """sendto(2): bytes sent, or -errno.  ``address`` is ``ffi.NULL`` for a connected socket."""
    return lib.lx_sendto(socket, data, size, flags, address, length)


def sendmsg(socket: int, message: CData, flags: int) -> int:
    """sendmsg(2): bytes sent, or -errno.  ``message`` is a ``struct msghdr *``; descriptors in it are borrowed."""
    return lib.lx_sendmsg(socket, message, flags)


def recvmsg(socket: int, message: CData, flags: int) -> int:
    """recvmsg(2): bytes received, or -errno.

    The caller owns every descriptor in the control messages, and finds truncation in ``message.msg_flags``.
    """
    return lib.lx_recvmsg(socket, message, flags)


def getsockopt(socket: int, level: int, option: int, value: CData, length: CData) -> int:
    """getsockopt(2): 0 or -errno.  ``length`` (``unsigned int *``) holds the room, then the size of the value."""
    return lib.lx_getsockopt(socket, level, option, value, length)


def setsockopt(socket: int, level: int, option: int, value: CData | bytes, length: int) -> int:
    """setsockopt(2): 0 or -errno."""
    return lib.lx_setsockopt(socket, level, option, value, length)


def shutdown(socket: int, how: int) -> int:
    """shutdown(2): 0 or -errno."""
    return lib.lx_shutdown(socket, how)


def fcntl(descriptor: int, command: int, argument: int) -> int:
    """fcntl(2) with an integer argument: depends on the command, or -errno."""
    return lib.lx_fcntl(descriptor, command, argument)


def fstat(descriptor: int, status: CData) -> int:
    """fstat(2): 0 or -errno.  ``status`` is a ``struct stat *``, of which ``st_size`` and ``st_blocks`` can be read."""
    return lib.lx_fstat(descriptor, status)


def close(descriptor: int) -> int:
    """close(2): 0 or -errno.  The descriptor is gone either way, after -EINTR too: never repeat it."""
    return lib.lx_close(descriptor)


def mmap(address: CData, length: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
    """mmap(2): the address, or -errno.  ``ffi.cast("char *", result)`` makes a pointer of it."""
    return lib.lx_mmap(address, length, protection, flags, descriptor, offset)


def munmap(address: CData, length: int) -> int:
    """munmap(2): 0 or -errno."""
    return lib.lx_munmap(address, length)


def epoll_create1(flags: int) -> int:
    """epoll_create1(2): the new descriptor, or -errno."""
    return lib.lx_epoll_create1(flags)


def epoll_ctl(epoll: int, operation: int, descriptor: int, event: CData) -> int:
    """epoll_ctl(2): 0 or -errno.  ``event`` is a ``struct epoll_event *``, or ``ffi.NULL`` to delete."""
    return lib.lx_epoll_ctl(epoll, operation, descriptor, event)


def epoll_pwait(epoll: int, events: CData, room: int, milliseconds: int) -> int:
    """epoll_pwait(2) with the signal mask left alone: the number of events, or -errno; -1 ms waits for ever."""
    return lib.lx_epoll_pwait(epoll, events, room, milliseconds)


def ppoll(polled: CData, count: int, timeout: CData) -> int:
    """ppoll(2) with the signal mask left alone: the number of ready ones, or -errno.

    The kernel writes the time that was left into ``timeout`` (``struct timespec *``; ``ffi.NULL`` waits for ever).
    """
    return lib.lx_ppoll(polled, count, timeout)
