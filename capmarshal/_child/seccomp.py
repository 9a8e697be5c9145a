"""A filter of system calls, made by libseccomp, which is loaded when it is wanted.

It knows the numbers and the calling conventions of each architecture.  One thing it can't say: that numbers above those
that it knows do not exist, which programs have another way for.  So a few steps of our own come before its program.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Final, Self

from capmarshal._child import allowed
from capmarshal._descriptors.moving import for_a_block
from capmarshal._kernel.errors import KernelError, check
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capmarshal._kernel.native import CData

LIBRARY: Final = "libseccomp.so.2"

# include/uapi/linux/seccomp.h: what a filter says, and what it sees.
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
# SECCOMP_FILTER_FLAG_TSYNC.
_ALL_THREADS = 1
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE = 0, 4
# include/uapi/linux/bpf_common.h: load a word, compare and skip so many steps, return.
_LOAD, _IF_EQUAL, _IF_GREATER, _RETURN = 0x20, 0x15, 0x25, 0x06

# include/seccomp.h of libseccomp's.
_MASKED_EQUAL = 7
_OF_OTHER_ARCHITECTURES, _OPTIMIZE = 2, 8
_AS_A_TREE = 2

# Of the C library that all of this process has.
_free = ctypes.CDLL(None).free
_free.argtypes, _free.restype = [ctypes.c_void_p], None

# No kernel has so many system calls.
_NUMBERS_MAX = 1024


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def library() -> ctypes.CDLL:
    """The library, loaded.

    Raises:
        OSError: it is not there.
    """
    loaded = ctypes.CDLL(LIBRARY)
    loaded.seccomp_init.argtypes, loaded.seccomp_init.restype = [ctypes.c_uint32], ctypes.c_void_p
    loaded.seccomp_release.argtypes, loaded.seccomp_release.restype = [ctypes.c_void_p], None
    loaded.seccomp_arch_native.restype = ctypes.c_uint32
    loaded.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    loaded.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    loaded.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    loaded.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    loaded.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    loaded.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return loaded


class Filter:
    """An allow-list in the making: what is not added gives EPERM.  A block, which releases it.

    Args:
        libseccomp: :func:`library`.
    """

    def __init__(self, libseccomp: ctypes.CDLL) -> None:
        self._library = libseccomp
        self._context = libseccomp.seccomp_init(_ERRNO | errno.EPERM)
        if not self._context:
            raise MemoryError("libseccomp has no memory")
        # What a 32-bit call of a 64-bit program gets; by default it is killed.
        self._check(libseccomp.seccomp_attr_set(self._context, _OF_OTHER_ARCHITECTURES, _ERRNO | errno.ENOSYS))
        # From libseccomp 2.5 on; without, the numbers are compared one after the other.
        libseccomp.seccomp_attr_set(self._context, _OPTIMIZE, _AS_A_TREE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.seccomp_release(self._context)

    def _check(self, result: int) -> None:
        if result < 0:
            raise KernelError(-result, f"making a filter, by libseccomp: {os.strerror(-result)}")

    def number_of(self, call: str) -> int:
        """The number of a system call; negative where this architecture, or the library, has none of that name."""
        number: int = self._library.seccomp_syscall_resolve_name(call.encode())
        return number

    def allow(self, call: str, comparisons: Iterable[allowed.If] = (), action: int = _ALLOW) -> None:
        """Allows a system call where all of that is so; one that is not known here is passed over.

        Args:
            call: its name.
            comparisons: as said.
            action: what is done then.
        """
        number = self.number_of(call)
        if number < 0:
            return
        given = [_Comparison(each.argument, _MASKED_EQUAL, each.mask, each.value) for each in comparisons]
        array = (_Comparison * len(given))(*given)
        self._check(self._library.seccomp_rule_add_array(self._context, action, number, len(given), array))

    def program(self) -> bytes:
        """What the kernel runs: the steps, of 8 bytes each."""

        def make(place: CData) -> int:
            return lib.cm_make_memfd(place, b"filter")

        with for_a_block(make, "making a filter", "memfd_create(2)") as number:
            self._check(self._library.seccomp_export_bpf(self._context, number))
            made = os.pread(number, os.fstat(number).st_size, 0)
        return _prologue(self._library.seccomp_arch_native(), self._last(), self._unknown()) + made

    def _last(self) -> int:
        """The highest number that the library knows."""
        architecture, name_of = self._library.seccomp_arch_native(), self._library.seccomp_syscall_resolve_num_arch
        last = 0
        for number in range(_NUMBERS_MAX):
            if name := name_of(architecture, number):
                last = number
                # seccomp_syscall_resolve_num_arch(3) leaves that to the caller.
                _free(name)
        return last

    def _unknown(self) -> list[int]:
        return [number for number in map(self.number_of, allowed.UNKNOWN) if number >= 0]


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One of a program's: struct sock_filter of include/uapi/linux/filter.h."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def _prologue(architecture: int, last: int, unknown: list[int]) -> bytes:
    """What comes before libseccomp's program: there are no such system calls, ENOSYS."""
    absent = _step(_RETURN, _ERRNO | errno.ENOSYS)
    steps = [_step(_LOAD, _NUMBER), _step(_IF_GREATER, last, 0, 1), absent]
    for number in unknown:
        steps += [_step(_IF_EQUAL, number, 0, 1), absent]
    # Another architecture's numbers are others.
    return b"".join([_step(_LOAD, _ARCHITECTURE), _step(_IF_EQUAL, architecture, 0, len(steps)), *steps])


def program(libseccomp: ctypes.CDLL, *, writes: bool, truncates: bool) -> bytes:
    """The filter that a confined process gets.

    Args:
        libseccomp: :func:`library`.
        writes: there are directories that it may write in.
        truncates: Landlock looks at truncate(2).

    Raises:
        KernelError: it cannot be made.
    """
    with Filter(libseccomp) as made:
        names = allowed.ANY | (allowed.WRITING if writes else set()) | (allowed.TRUNCATING if truncates else set())
        for call in sorted(names):
            made.allow(call)
        for call, comparisons in allowed.with_arguments(writes=writes):
            made.allow(call, comparisons)
        for call, comparisons in allowed.IGNORED:
            # No error: 0.
            made.allow(call, comparisons, _ERRNO)
        for call, comparisons in allowed.WITHOUT:
            made.allow(call, comparisons, _ERRNO | errno.ENOSYS)
        return made.program()


def available() -> bool:
    """Whether this process may install a filter: the kernel has them, and no filter refuses it."""
    action = ffi.new("uint32_t *", _ERRNO)
    return lib.lx_seccomp(_GET_ACTION_AVAIL, 0, action) == 0


def install(program: bytes) -> None:
    """Has the kernel run it at every system call of this process, of all its threads, from now on.

    Raises:
        KernelError: it does not take it, or a filter that is there refuses that, or a thread has another one.
    """
    steps = ffi.new("char[]", program)
    # struct sock_fprog: its padding is that of C.
    given = ffi.new("char[]", struct.pack("@HP", len(program) // 8, int(ffi.cast("uintptr_t", steps))))
    if check(lib.lx_seccomp(_SET_MODE_FILTER, _ALL_THREADS, given), "installing a filter", "seccomp(2)") > 0:
        raise KernelError(errno.EBUSY, "installing a filter: a thread has another one, and can't be bound")
