"""SharedBuffer: memory that peers who trust each other write and read, and that is used again.

It travels as two descriptors: the memory, and a *lease*, one end of a socket whose other end its pool has.  Copies of
the lease are one open file, wherever they are, so the pool's end hangs up exactly when the last is closed: by whoever
received the buffer and let go of it, of whatever process, or by the kernel when that has died.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import weakref
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.array_layout import ArrayLayout, bytes_of
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.memory import FIXED, Memory, check_memory, map_memory, seals_of
from capmarshal._descriptors.moving import stolen
from capmarshal._descriptors.new_process import hand_down, inherited, refuse_unless_created
from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import ArgumentError, Closed
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from capmarshal._kernel.native import CData

_WHAT = "shared buffer"
# F_SEAL_FUTURE_WRITE, which fcntl has no name for before Python 3.13.
_UNWRITABLE = fcntl.F_SEAL_WRITE | 0x10
# Of a pool's buffers, those that are mapped at the same time without a view: beyond that, one is mapped anew.
_MAPPED_MAX = 256


class Mappings:
    """How the buffers of one pool are mapped here: each once, for as long as this process has any of them.

    A buffer comes again and again.  To map it each time would cost as much as to copy it.
    """

    __slots__ = ("__weakref__", "_by_file")

    def __init__(self) -> None:
        # By device and inode, which are nobody else's while the memory is mapped.
        self._by_file: dict[tuple[int, int], CData] = {}

    def of(self, number: int, size: int) -> CData:
        """The mapping of a buffer.

        Raises:
            KernelError: no room in the address space, or it cannot be written.
        """
        status = os.fstat(number)
        file = (status.st_dev, status.st_ino)
        mapping = self._by_file.get(file)
        if mapping is None:
            # A stranger may say of any memory that it is of this pool; views keep what they stand on.
            for oldest in tuple(self._by_file)[: 1 - _MAPPED_MAX]:
                self._by_file.pop(oldest, None)
            # Of two threads one has it mapped for both.
            mapping = self._by_file.setdefault(file, map_memory(number, size, _WHAT, writable=True))
        return mapping

    def knows(self, status: os.stat_result) -> bool:
        """Whether a buffer is mapped."""
        return (status.st_dev, status.st_ino) in self._by_file


# By the number of the pool.
_mappings: weakref.WeakValueDictionary[int, Mappings] = weakref.WeakValueDictionary()


def mappings_of(pool: int) -> Mappings:
    """How the buffers of a pool are mapped, which the caller keeps."""
    return _mappings.setdefault(pool, Mappings())


class Lease(Descriptor):
    """A buffer's lease: whoever closes it, it stays open for as long as there are views of the buffer."""

    __slots__ = ("_let_go", "_views")
    _let_go: bool
    _views: set[object]

    def __new__(cls, *_arguments: object) -> Self:
        """Before there is a descriptor in it."""
        made = super().__new__(cls)
        made._views = set()
        made._let_go = False
        return made

    def begin(self, view: object) -> None:
        """There is a view."""
        self._views.add(view)

    def end(self, view: object) -> None:
        """There is that view no more."""
        self._views.discard(view)
        if not self._let_go or self._views:
            return
        if process.reaper is None or sys.is_finalizing():
            super().close()
        else:
            # In whichever thread that is: what a stranger sent may block.
            process.reaper.close([self])

    def __repr__(self) -> str:
        return f"<lease of a SharedBuffer, {super().__repr__()}>"

    def close(self) -> None:
        """Closes it, now or when the last view has gone.  Does nothing the second time."""
        self._let_go = True
        if not self._views:
            super().close()


class SharedBuffer:
    """Memory of a :class:`BufferPool` that is handed over without a copy, and used again.

    Everybody who has it can write to it, at any time: **whoever receives one must trust all others who have it.**  For
    others there is :class:`Dataspace`, which nobody can change.

    It is held, and so not used again, until every process has closed it, or died, and let go of its views and arrays.
    A forked child holds what its parent held, until it closes that, or ends.  It owns two descriptors; a context
    manager.

    ``numpy.asarray(buffer)`` is the array, of the same memory; and so is ``memoryview(buffer)``, as of a dataspace.

    Attributes:
        size: bytes.
        format: of an item of the array, as of a dataspace; "B" of bytes.
        shape: how many items there are along each dimension.
    """

    __slots__ = ("__weakref__", "_layout", "_lease", "_mappings", "_memory", "_pool", "format", "shape", "size")

    def __new__(cls, memory: Descriptor | None = None, *_arguments: object, **_named: object) -> Self:
        """Says how one is made."""
        if not isinstance(memory, Descriptor):
            raise TypeError("a shared buffer is taken out of a pool: BufferPool(count, shape).take()")
        return super().__new__(cls)

    def __init__(self, memory: Memory, lease: Lease, pool: int, layout: ArrayLayout) -> None:
        self._memory = memory
        self._lease = lease
        self._pool = pool
        self._mappings: Mappings = mappings_of(pool)
        self._layout: ArrayLayout = layout
        self.size: int = layout.size
        self.format: str = layout.format
        self.shape: tuple[int, ...] = layout.shape

    @property
    def closed(self) -> bool:
        """Whether its descriptors are closed; views live on, and hold it."""
        return self._memory.closed

    def fileno(self) -> int:
        """The descriptor of its memory, borrowed.

        Raises:
            Closed: it was closed.
        """
        if self.closed:
            raise Closed("a shared buffer that was closed before")
        return self._memory.fileno()

    def view(self) -> memoryview:
        """Its bytes, to be read and written, without a copy.  It is held for as long as any view lives.

        Raises:
            KernelError: no room in the address space.
            Closed: it was closed.
        """
        mapping = self._mappings.of(self.fileno(), self.size)
        end = _End(self._lease, self._mappings, mapping)
        view = memoryview(ffi.buffer(ffi.gc(ffi.cast("char *", mapping), end), self.size))
        self._lease.begin(end)
        return view

    @property
    def __array_interface__(self) -> dict[str, object]:
        """For numpy, which reads and writes as much memory as the shape says: that was checked when it came."""
        return {"version": 3, "typestr": self._layout.typestr, "shape": self.shape, "data": self.view()}

    def __buffer__(self, flags: int) -> memoryview:
        return self._layout.shaped(self.view())

    def dup(self) -> SharedBuffer:
        """Another owner, which holds it as well.

        Raises:
            TableFull: no room for descriptors.
            Closed: it was closed.
        """
        self.fileno()
        memory = Memory.dup_of(self._memory)
        try:
            return SharedBuffer(memory, stolen(self._lease.dup(), Lease), self._pool, self._layout)
        except BaseException:
            memory.close()
            raise

    def close(self) -> None:
        """Lets go of it.  Views live on, and hold it.  Does nothing the second time."""
        self._memory.close()
        self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # What copy.copy() asks, too.
        refuse_unless_created(
            "a SharedBuffer is neither copied nor pickled, for its descriptors have one owner: dup() makes another"
        )
        memory, lease = hand_down(self.fileno()), hand_down(self._lease.fileno())
        return _inherited, (memory, lease, self._pool, self._layout)

    def __repr__(self) -> str:
        return f"<SharedBuffer of {self.size} bytes{', closed' if self.closed else ''}>"


class _End:
    """What is done when a view goes.  Refers to what must not go before that: lease and mappings."""

    __slots__ = ("_lease", "_mapping", "_mappings")

    def __init__(self, lease: Lease, mappings: Mappings, mapping: CData) -> None:
        self._lease = lease
        self._mappings = mappings
        self._mapping = mapping

    def __call__(self, _address: object) -> None:
        self._lease.end(self)


def _inherited(memory: Any, lease: Any, pool: int, layout: ArrayLayout) -> SharedBuffer:
    return SharedBuffer(Memory(inherited(memory)), Lease(inherited(lease)), pool, layout)


def parts_of(buffer: SharedBuffer) -> tuple[Descriptor, Lease, int, ArrayLayout | None]:
    """What a buffer is handed over as, borrowed: memory, lease, the pool's number; and what array it is, if any."""
    layout = buffer._layout  # noqa: SLF001 - of this module's own class
    return buffer._memory, buffer._lease, buffer._pool, None if layout.is_bytes else layout  # noqa: SLF001 - as above


def buffer_of(memory: Memory, lease: Lease, pool: int, layout: ArrayLayout | None) -> SharedBuffer:
    """Makes a buffer of what a stranger sent.

    Args:
        memory: the buffer's on success.
        lease: likewise.
        pool: the number of its pool.
        layout: of the array that it is said to be.

    Raises:
        ArgumentError: the memory could become shorter, or cannot be written, or is not all there; or it is no lease, or
            no such array.
    """
    number = memory.fileno()
    # fstat(2) of a file of FUSE or NFS asks its server, which may never answer: first it is told that it is none.
    if lib.cm_file_type(lease.fileno()) != stat.S_IFSOCK:
        raise ArgumentError("a shared buffer is due; what came with its memory is no lease")
    seals = seals_of(number, _WHAT)
    status = os.fstat(number)
    known = _mappings.get(pool)
    # Seals are for ever: what was looked at before it was mapped is so still.
    if known is None or not known.knows(status):
        if seals & FIXED != FIXED:
            raise ArgumentError("the shared buffer that came could become shorter, and kill who reads it")
        access = lib.lx_fcntl(number, fcntl.F_GETFL, 0) & os.O_ACCMODE
        if seals & _UNWRITABLE or access != os.O_RDWR:
            raise ArgumentError("a shared buffer is due; what came cannot be written: it may be a dataspace")
        if not status.st_size:
            raise ArgumentError("a shared buffer is due; what came has no bytes")
        check_memory(number, _WHAT)
    layout = layout or bytes_of(status.st_size)
    layout.check(status.st_size)
    return SharedBuffer(memory, lease, pool, layout)
