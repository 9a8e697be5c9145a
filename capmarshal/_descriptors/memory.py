"""Memory as a descriptor, a memfd: making it, looking at what a stranger sent, mapping it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
from typing import TYPE_CHECKING, Final

from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.moving import made
from capmarshal._kernel.errors import ArgumentError, check, error_for
from capmarshal._kernel.native import NULL, ffi, lib

if TYPE_CHECKING:
    from capmarshal._kernel.native import CData

# What holds of all memory that is handed over: nobody makes it shorter, which would kill whoever reads behind its end
# (SIGBUS), nor longer, and nobody adds other seals.
FIXED: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
# Of stat(2): st_blocks counts these, whatever the file system's own are.
_BLOCK = 512


class Memory(Descriptor):
    """The descriptor of memory: whoever forgets what has it is told of that, and not of a descriptor alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<memory of a Dataspace, SharedBuffer or BufferPool, {super().__repr__()}>"


def make_memory(size: int, what: str, *, at_once: bool = True) -> Memory:
    """New memory of so many bytes, all zero.

    Args:
        size: bytes.
        what: it is, in words.
        at_once: it is all there; otherwise each page when it is written, as of what comes from somebody who says only
            how much that will be.  It is to be handed over when all is written, and not before.

    Raises:
        TableFull, KernelError: no room for a descriptor, or no memory (ENOMEM, ENOSPC).
    """
    _check_room(size, what)
    name = b"capmarshal-" + what.replace(" ", "-").encode()
    descriptor = made(lambda place: lib.cm_make_memfd(place, name), f"making a {what}", Memory, "memfd_create(2)")
    try:
        if not at_once:
            os.ftruncate(descriptor.fileno(), size)
        elif size:
            # All of it now: no page is missing when somebody reads it, and the receiver refuses one with holes.
            os.posix_fallocate(descriptor.fileno(), 0, size)
    except BaseException as error:
        descriptor.close()
        if not isinstance(error, OSError):
            raise
        raise error_for(error.errno or 0, f"making a {what} of {size} bytes") from None
    return descriptor


def _check_room(size: int, what: str) -> None:
    """Asks the kernel for as much memory of the kind that it refuses to give where it never could.

    Of a memfd's it never says no: it would have other processes killed, one after the other, until there is room
    (shmem_fallocate() in mm/shmem.c accounts for each page by itself; Documentation/mm/overcommit-accounting.rst).

    Raises:
        KernelError: it is more than this machine has.
    """
    if size > sys.maxsize:
        raise error_for(errno.ENOMEM, f"making a {what} of {size} bytes")
    if size:
        # Shared: what is private counts as the process's own data, of which it may have little (RLIMIT_DATA).
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
        address = check(lib.lx_mmap(NULL, size, protection, flags, -1, 0), f"making a {what} of {size} bytes")
        lib.lx_munmap(ffi.cast("void *", address), size)


def seals_of(number: int, what: str) -> int:
    """The seals of memory that a stranger sent.

    Raises:
        ArgumentError: it is no memfd, or none that can be sealed.
    """
    seals = lib.lx_fcntl(number, fcntl.F_GET_SEALS, 0)
    if seals < 0:
        raise ArgumentError(f"a {what} is due; what came is no memfd")
    if seals == fcntl.F_SEAL_SEAL:
        raise ArgumentError(
            f"a {what} is due; what came can never be sealed: a file of tmpfs, or a memfd that was made without "
            "MFD_ALLOW_SEALING"
        )
    return seals


def check_memory(number: int, what: str) -> os.stat_result:
    """What stat says of memory that a stranger sent, whose seals are as they should be.

    Raises:
        ArgumentError: its memory is not all there.
    """
    status = os.fstat(number)
    if os.fstatvfs(number).f_bsize != mmap.PAGESIZE:
        # Reading one may need a huge page that is not to be had, and then kills with SIGBUS.
        raise ArgumentError(f"the {what} that came is of huge pages")
    if status.st_blocks * _BLOCK < status.st_size:
        raise ArgumentError(
            f"the {what} that came claims {status.st_size} bytes and has memory for {status.st_blocks * _BLOCK}"
        )
    return status


def map_memory(number: int, size: int, what: str, *, writable: bool) -> CData:
    """Maps memory of at least one byte; it is unmapped when what is returned goes.

    Raises:
        KernelError: no room in the address space.
    """
    # All of what will be written at once: one fault a page, of pages that are there, is what costs most.  What is read
    # is mapped privately: before Linux 6.7, a shared mapping of what is sealed against writing is refused.  Nobody
    # writes to that, so the pages are the same.  Python's mmap would keep a second descriptor open.
    protection, flags = mmap.PROT_READ, mmap.MAP_PRIVATE
    if writable:
        protection, flags = protection | mmap.PROT_WRITE, mmap.MAP_SHARED | mmap.MAP_POPULATE
    address = check(lib.lx_mmap(NULL, size, protection, flags, number, 0), f"mapping a {what}")
    return ffi.gc(ffi.cast("char *", address), lambda start: lib.lx_munmap(start, size))
