"""A process of which the kernel refuses a socket option, as an emulator or a sandbox may: by seccomp."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_GETSOCKOPT = {"x86_64": 55, "aarch64": 209}[platform.machine()]

# include/uapi/linux/bpf_common.h, seccomp.h: load a word of struct seccomp_data, compare, return.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _THIRD_ARGUMENT = 0, 16 + 2 * 8
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def refuse_socket_option(option, error):
    """From here on, getsockopt(2) of that option gives ``error`` in this thread and what it makes; for a child."""
    steps = [
        (_LOAD, 0, 0, _NUMBER),
        (_IF_EQUAL, 0, 3, _GETSOCKOPT),
        (_LOAD, 0, 0, _THIRD_ARGUMENT),
        (_IF_EQUAL, 0, 1, option),
        (_RETURN, 0, 0, _ERRNO | error),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0)),
        (_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program)),
    ):
        if libc.prctl(*arguments, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
