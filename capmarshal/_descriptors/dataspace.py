"""Dataspace: big data as a capability.

A memfd that nobody can change any more.  Handing it over costs what handing over any descriptor costs, however large
it is, and both sides read the same memory.  Made of an array it is one: its format and its shape travel with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.array_layout import ArrayLayout, bytes_of
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.memory import FIXED, Memory, check_memory, make_memory, map_memory, seals_of
from capmarshal._descriptors.moving import stolen
from capmarshal._descriptors.new_process import hand_down, inherited, refuse_unless_created
from capmarshal._kernel.errors import (
    ArgumentError,
    Closed,
    KernelError,
    check,
    error_for,
    name_of,
    with_article,
)
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from capmarshal._descriptors.array_layout import BufferOrArray

# Without the first, the sender could change what was checked.
_SEALS = fcntl.F_SEAL_WRITE | FIXED
_WHAT = "dataspace"


class Dataspace:
    """Bytes or an array that can be handed over without a copy: a sealed memfd.

    Made with :meth:`from_buffer`; or with :meth:`create`, written in place, and sealed with :meth:`seal`.  It owns one
    descriptor; a context manager.  A view of it keeps the memory, not the descriptor.

    ``numpy.asarray(dataspace)`` is the array, of the same memory; and so is ``memoryview(dataspace)``, from Python 3.12
    on, for the formats that a memoryview has.

    Args:
        descriptor: of a memfd; taken.
        size: of the memfd, in bytes.
        sealed: it is.
        layout: of the array that it is; of bytes unless given.

    Attributes:
        size: bytes.
        format: of an item of the array, a letter as in :mod:`struct`, "F" or "D" of complex numbers; "B" of bytes.
        shape: how many items there are along each dimension.
    """

    __slots__ = ("__weakref__", "_descriptor", "_layout", "_sealed", "format", "shape", "size")

    def __new__(cls, descriptor: Descriptor | None = None, *_arguments: object, **_named: object) -> Self:
        """Says how one is made, to whom gives what is to be in it."""
        if not isinstance(descriptor, Descriptor):
            raise TypeError(
                "a dataspace is made with Dataspace.from_buffer(data), with Dataspace.create(size), write() and seal(),"
                " or of the Descriptor of a memfd"
            )
        return super().__new__(cls)

    def __init__(self, descriptor: Descriptor, size: int, *, sealed: bool, layout: ArrayLayout | None = None) -> None:
        self._descriptor = stolen(descriptor, Memory)
        self.size: int = size
        self._sealed = sealed
        self._layout: ArrayLayout = layout or bytes_of(size)
        self.format: str = self._layout.format
        self.shape: tuple[int, ...] = self._layout.shape

    @classmethod
    def create(cls, shape: int | Sequence[int], format: str = "B") -> Self:  # noqa: A002 - as struct and memoryview say
        """A new one, all zero, to be written and sealed.

        Args:
            shape: how many bytes; or, of an array, how many items along each dimension.
            format: of an item, a letter as in :mod:`struct`, or ``dtype.char`` of numpy's; bytes unless given.

        Raises:
            ValueError, TypeError: no such shape or format.
            TableFull, KernelError: no room for a descriptor, or no memory (ENOSPC).
        """
        layout = ArrayLayout.asked_for(shape, format)
        return cls(make_memory(layout.size, _WHAT), layout.size, sealed=False, layout=layout)

    @classmethod
    def from_buffer(cls, buffer: BufferOrArray) -> Self:
        """A new one with a copy of ``buffer``, sealed: bytes, or an array, whose format and shape it has then.

        The items lie one after the other, the last index running fastest.  An array that is not so is copied twice.

        Raises:
            TypeError, ValueError, BufferError: no buffer, or an array of what are no numbers.
            TableFull, KernelError: as from :meth:`create`.
        """
        with memoryview(buffer) as array:  # type: ignore[arg-type, unused-ignore]  # an array is one
            layout = ArrayLayout.of(array)
            dataspace = cls.create(layout.shape, layout.format)
            try:
                dataspace.write(array if array.c_contiguous else array.tobytes())
                dataspace.seal()
            except BaseException:
                dataspace.close()
                raise
        return dataspace

    @classmethod
    def receive(cls, descriptor: Descriptor, layout: ArrayLayout | None = None) -> Self:
        """Checks a descriptor that a stranger sent.

        Args:
            descriptor: taken on success.
            layout: of the array that it is said to be.

        Raises:
            ArgumentError: it is no memfd, or one that could still be changed, or whose memory is not all there; or no
                such array is in it.
        """
        number = descriptor.fileno()
        if seals_of(number, _WHAT) & _SEALS != _SEALS:
            raise ArgumentError("the dataspace that came is not sealed: its sender could still change it")
        size = check_memory(number, _WHAT).st_size
        if lib.lx_fcntl(number, fcntl.F_GETFL, 0) & os.O_ACCMODE == os.O_WRONLY:
            raise ArgumentError("the dataspace that came cannot be read")
        if layout is not None:
            layout.check(size)
        return cls(descriptor, size, sealed=True, layout=layout)

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

    def write(self, data: BufferOrArray, offset: int = 0) -> None:
        """Writes all of ``data`` at ``offset`` bytes from the start.

        Raises:
            ValueError: that is outside of it.
            TypeError: it is no buffer.
            KernelError: it is sealed (EPERM).
            Closed: it was closed.
        """
        # No variable refers to it: what is raised would, and keep the buffer that it is in from being let go of.
        with memoryview(_bytes_in(data)) as rest:
            if offset < 0 or offset + rest.nbytes > self.size:
                raise ValueError(f"{rest.nbytes} bytes at {offset} in a dataspace of {self.size}")
            written = 0
            while written < rest.nbytes:
                number = self.fileno()
                try:
                    written += os.pwrite(number, rest[written:], offset + written)
                except OSError as error:
                    if error.errno == errno.EPERM:
                        raise KernelError(errno.EPERM, "writing to a dataspace: it is sealed, for ever") from None
                    raise error_for(error.errno or 0, "writing to a dataspace") from None

    def seal(self) -> None:
        """Makes it unchangeable, for everybody and for ever.  Does nothing the second time.

        Raises:
            KernelError: somebody has it mapped for writing (EBUSY), as whoever has a view or an array of it.
            Closed: it was closed.
        """
        if self._sealed:
            return
        result = lib.lx_fcntl(self.fileno(), fcntl.F_ADD_SEALS, _SEALS)
        if result == -errno.EBUSY:
            raise KernelError(
                errno.EBUSY,
                "sealing a dataspace: it is busy, for who has a view or an array of it could still write: let go of "
                "each first (del array), in a child that was forked meanwhile, too",
            )
        check(result, "sealing a dataspace")
        self._sealed = True

    def view(self) -> memoryview:
        """Its bytes, without a copy: to be written until it is sealed, and read-only from then on.

        The memory stays as long as any view does, also when the dataspace is closed.

        Raises:
            KernelError: no room in the address space.
            Closed: it was closed.
        """
        number = self.fileno()
        if self.size == 0:
            return memoryview(b"")
        memory = map_memory(number, self.size, _WHAT, writable=not self._sealed)
        view = memoryview(ffi.buffer(memory, self.size))
        return view.toreadonly() if self._sealed else view

    @property
    def __array_interface__(self) -> dict[str, object]:
        """For numpy, which reads as much memory as the shape says: that was checked when it came."""
        return {"version": 3, "typestr": self._layout.typestr, "shape": self.shape, "data": self.view()}

    def __buffer__(self, flags: int) -> memoryview:
        return self._layout.shaped(self.view())

    def dup(self) -> Dataspace:
        """Another owner of the same memory.

        Raises:
            TableFull: no room for a descriptor.
            Closed: it was closed.
        """
        return Dataspace(self._descriptor.dup(), self.size, sealed=self._sealed, layout=self._layout)

    def close(self) -> None:
        """Closes the descriptor.  Views live on.  Does nothing the second time."""
        self._descriptor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # What copy.copy() asks, too: two owners would both close it.
        refuse_unless_created(
            "a Dataspace is neither copied nor pickled, for its descriptor has one owner: dup() makes another"
        )
        return _inherited, (hand_down(self.fileno()), self.size, self._sealed, self._layout)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "sealed" if self._sealed else "unsealed"
        return f"<Dataspace of {self.size} bytes, {state}>"


def _bytes_in(data: BufferOrArray) -> Any:
    """A buffer as one of bytes.

    Raises:
        TypeError: it is none.
    """
    try:
        # As cffi sees it: memoryview.cast() knows few of the items that there are.
        return ffi.buffer(ffi.from_buffer(data))
    except TypeError:
        words = with_article(name_of(type(data)))
        raise TypeError(f"what is written is bytes, an array or another buffer, not {words}") from None


def _inherited(handed_down: Any, size: int, sealed: bool, layout: ArrayLayout) -> Dataspace:
    return Dataspace(Descriptor(inherited(handed_down)), size, sealed=sealed, layout=layout)


def array_in(dataspace: Dataspace) -> ArrayLayout | None:
    """What array a dataspace holds; None if it is of bytes."""
    layout = dataspace._layout  # noqa: SLF001 - of this module's own class
    return None if layout.is_bytes else layout
