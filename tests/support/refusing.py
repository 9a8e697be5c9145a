"""A process of which the kernel refuses system calls, as an emulator or somebody's sandbox may: by seccomp."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2

# The numbers on x86-64 and on aarch64: asm/unistd_64.h, asm-generic/unistd.h.
_NUMBERS = {
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    "getpeername": (52, 205),
    "getsockname": (51, 204),
    "shutdown": (48, 210),
    "sendto": (44, 206),
    "sendmmsg": (307, 269),
    "recvmmsg": (299, 243),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "ptrace": (101, 117),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
# What a well-known sandbox for coding agents denies.
DENIED_BY_AGENTS = tuple(_NUMBERS)
# Others that a test has refused.
_NUMBERS.update(
    {
        "socketpair": (53, 199),
        "sendmsg": (46, 211),
        "recvmsg": (47, 212),
        "fcntl": (72, 25),
        "kcmp": (312, 272),
        "memfd_create": (319, 279),
        "eventfd2": (290, 19),
        "epoll_create1": (291, 20),
        "pidfd_open": (434, 434),
        "close_range": (436, 436),
    }
)
# And container runtimes.
_NUMBERS["pidfd_getfd"] = (438, 438)
_NUMBERS["seccomp"] = (317, 277)
_NUMBERS["unshare"] = (272, 97)
_NUMBERS["userfaultfd"] = (323, 282)
_NUMBERS["statx"] = (332, 291)
_NUMBERS["landlock_create_ruleset"] = (444, 444)

_MACHINE = {"x86_64": 0, "aarch64": 1}[platform.machine()]

# include/uapi/linux/bpf_common.h, seccomp.h: load a word of struct seccomp_data, compare, return.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARGUMENTS = 0, 16
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000


def refuse(calls, error=errno.EPERM):
    """From here on, these system calls give ``error`` in this thread and what it makes; for a child."""
    _on(calls, _ERRNO | error)


def kill(calls):
    """The same, and whoever makes one is killed."""
    _on(calls, _KILL_PROCESS)


def _on(calls, action):
    steps = [(_LOAD, 0, 0, _NUMBER)]
    for call in calls:
        steps += [(_IF_EQUAL, 0, 1, _NUMBERS[call][_MACHINE]), (_RETURN, 0, 0, action)]
    _install(steps)


def refuse_argument(call, place, value, error):
    """The same for one call, where one of its arguments, the first is 0, has that value."""
    _install(
        [
            (_LOAD, 0, 0, _NUMBER),
            (_IF_EQUAL, 0, 3, _NUMBERS[call][_MACHINE]),
            (_LOAD, 0, 0, _ARGUMENTS + place * 8),
            (_IF_EQUAL, 0, 1, value),
            (_RETURN, 0, 0, _ERRNO | error),
        ]
    )


def refuse_socket_option(option, error, call="getsockopt"):
    """The same for getsockopt(2), or setsockopt(2), of one option."""
    refuse_argument(call, 2, option, error)


def _install(steps):
    steps = [*steps, (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0)),
        (_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program)),
    ):
        if libc.prctl(*arguments, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
