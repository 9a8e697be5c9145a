"""Dataspace: big data as a capability.

A memfd that nobody can change any more.  Handing it over costs what handing over any descriptor costs, however large
it is, and both sides read the same memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.moving import made, stolen
from capmarshal._kernel.errors import ArgumentError, Closed, check, error_for
from capmarshal._kernel.native import NULL, ffi, lib

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

# Without the last, somebody could still add others; without the first, the sender could change what was checked.
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_NAME = b"capmarshal-dataspace"
# Of stat(2): st_blocks counts these, whatever the file system's own are.
_BLOCK = 512


class Dataspace:
    """Bytes that can be handed over without a copy: a sealed memfd.

    Made with :meth:`from_buffer`, or with :meth:`create`, :meth:`write` and :meth:`seal`.  It owns one descriptor; a
    context manager.  A view of it keeps the memory, not the descriptor.

    Args:
        descriptor: of a memfd; taken.
        size: of the memfd, in bytes.
        sealed: it is.

    Attributes:
        size: bytes.
    """

    __slots__ = ("__weakref__", "_descriptor", "_sealed", "size")

    def __new__(cls, descriptor: Descriptor, *_arguments: object, **_named: object) -> Self:
        """Says how one is made, to whom gives what is to be in it."""
        if not isinstance(descriptor, Descriptor):
            raise TypeError(
                "a dataspace is made with Dataspace.from_buffer(data), with Dataspace.create(size), write() and seal(),"
                " or of the Descriptor of a memfd"
            )
        return super().__new__(cls)

    def __init__(self, descriptor: Descriptor, size: int, *, sealed: bool) -> None:
        self._descriptor = descriptor
        self.size: int = size
        self._sealed = sealed

    @classmethod
    def create(cls, size: int) -> Self:
        """A new one of ``size`` bytes, all zero, to be written and sealed.

        Raises:
            ValueError, TypeError: negative size, or none.
            TableFull, KernelError: no room for a descriptor, or no memory (ENOSPC).
        """
        if not isinstance(size, int):
            raise TypeError(f"a size is a number of bytes, not {size!r}")
        if size < 0:
            raise ValueError(f"a size is 0 or more bytes, not {size}")
        descriptor = made(lambda place: lib.cm_make_memfd(place, _NAME), "making a dataspace", Descriptor)
        try:
            if size:
                # All of it now: no page is missing when somebody reads it, and the receiver refuses one with holes.
                os.posix_fallocate(descriptor.fileno(), 0, size)
            return cls(descriptor, size, sealed=False)
        except BaseException as error:
            descriptor.close()
            if not isinstance(error, OSError):
                raise
            raise error_for(error.errno or 0, f"making a dataspace of {size} bytes") from None

    @classmethod
    def from_buffer(cls, buffer: Buffer) -> Self:
        """A new one with a copy of ``buffer``, sealed: bytes, an array, anything contiguous.

        Raises:
            BufferError, TypeError: not contiguous, or no buffer.
            TableFull, KernelError: as from :meth:`create`.
        """
        with memoryview(buffer) as whole, whole.cast("B") as data:
            dataspace = cls.create(data.nbytes)
            try:
                dataspace.write(data)
                dataspace.seal()
            except BaseException:
                dataspace.close()
                raise
        return dataspace

    @classmethod
    def receive(cls, descriptor: Descriptor) -> Self:
        """Checks a descriptor that a stranger sent.

        Args:
            descriptor: taken on success.

        Raises:
            ArgumentError: it is no memfd, or one that could still be changed, or whose memory is not all there.
        """
        number = descriptor.fileno()
        seals = lib.lx_fcntl(number, fcntl.F_GET_SEALS, 0)
        if seals < 0:
            raise ArgumentError("a dataspace is due; what came is no memfd")
        if seals == fcntl.F_SEAL_SEAL:
            raise ArgumentError(
                "a dataspace is due; what came can never be sealed: a file of tmpfs, or a memfd that was made without "
                "MFD_ALLOW_SEALING"
            )
        if seals & _SEALS != _SEALS:
            raise ArgumentError("the dataspace that came is not sealed: its sender could still change it")
        status = os.fstat(number)
        if os.fstatvfs(number).f_bsize != mmap.PAGESIZE:
            # Reading one may need a huge page that is not to be had, and then kills with SIGBUS.
            raise ArgumentError("the dataspace that came is of huge pages")
        if status.st_blocks * _BLOCK < status.st_size:
            raise ArgumentError(
                f"the dataspace that came claims {status.st_size} bytes and has memory for {status.st_blocks * _BLOCK}"
            )
        if lib.lx_fcntl(number, fcntl.F_GETFL, 0) & os.O_ACCMODE == os.O_WRONLY:
            raise ArgumentError("the dataspace that came cannot be read")
        return cls(stolen(descriptor, Descriptor), status.st_size, sealed=True)

    @property
    def sealed(self) -> bool:
        """Whether nobody can change it any more."""
        return self._sealed

    @property
    def closed(self) -> bool:
        """Whether its descriptor is closed; views live on."""
        return self._descriptor.closed

    def fileno(self) -> int:
        """The descriptor, borrowed.

        Raises:
            Closed: it was closed.
        """
        if self.closed:
            raise Closed("a dataspace that was closed before")
        return self._descriptor.fileno()

    def write(self, data: Buffer, offset: int = 0) -> None:
        """Writes all of ``data`` at ``offset`` bytes from the start.

        Raises:
            ValueError: that is outside of it.
            KernelError: it is sealed (EPERM).
            Closed: it was closed.
        """
        with memoryview(data) as whole, whole.cast("B") as rest:
            if offset < 0 or offset + rest.nbytes > self.size:
                raise ValueError(f"{rest.nbytes} bytes at {offset} in a dataspace of {self.size}")
            written = 0
            while written < rest.nbytes:
                number = self.fileno()
                try:
                    written += os.pwrite(number, rest[written:], offset + written)
                except OSError as error:
                    raise error_for(error.errno or 0, "writing to a dataspace") from None

    def seal(self) -> None:
        """Makes it unchangeable, for everybody and for ever.  Does nothing the second time.

        Raises:
            KernelError: somebody has it mapped for writing (EBUSY).
            Closed: it was closed.
        """
        if not self._sealed:
            check(lib.lx_fcntl(self.fileno(), fcntl.F_ADD_SEALS, _SEALS), "sealing a dataspace")
            self._sealed = True

    def view(self) -> memoryview:
        """Its bytes, read-only and without a copy.

        The memory stays as long as any view does, also when the dataspace is closed.

        Raises:
            ValueError: it is not sealed yet.
            KernelError: no room in the address space.
            Closed: it was closed.
        """
        number = self.fileno()
        if not self._sealed:
            raise ValueError("only a sealed dataspace can be viewed: what is seen must not change")
        if self.size == 0:
            return memoryview(b"")
        # MAP_PRIVATE: before Linux 6.7, a shared mapping of what is sealed against writing is refused.  Nobody writes,
        # so the pages are the same.  Python's mmap would keep a second descriptor open.
        address = check(
            lib.lx_mmap(NULL, self.size, mmap.PROT_READ, mmap.MAP_PRIVATE, number, 0), "mapping a dataspace"
        )
        size = self.size
        memory = ffi.gc(ffi.cast("char *", address), lambda start: lib.lx_munmap(start, size))
        return memoryview(ffi.buffer(memory, size)).toreadonly()

    def dup(self) -> Dataspace:
        """Another owner of the same memory.

        Raises:
            TableFull: no room for a descriptor.
            Closed: it was closed.
        """
        return Dataspace(self._descriptor.dup(), self.size, sealed=self._sealed)

    def close(self) -> None:
        """Closes the descriptor.  Views live on.  Does nothing the second time."""
        self._descriptor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        # What copy.copy() asks, too: two owners would both close it.
        raise TypeError(
            "a Dataspace is neither copied nor pickled, for its descriptor has one owner: dup() makes another"
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else "sealed" if self._sealed else "unsealed"
        return f"<Dataspace of {self.size} bytes, {state}>"
