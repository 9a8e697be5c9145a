"""What does not fit into one body is lent: its receiver fetches it, one chunk after the other.

The sender lends it and sends a number for it; whoever is told the number asks for chunks, as many as it has room for,
and says when it has all of them.  So nothing is pushed, and a receiver that is slow, or gone, costs the sender no
memory but what is lent.  An ask changes nothing: it may be repeated, and may come twice, late and in any order.

A :class:`Lender` belongs to one link, and to the thread of its event loop.  What is lent stays so until it is ended,
however often it was fetched: a link that has ended ends all (:meth:`Lender.end_all`).
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final, Protocol

from capmarshal._bridge_engine.engine import LARGEST
from capmarshal._bridge_link.sealing import OVERHEAD
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._kernel.errors import Error

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Bytes of a body that are neither its seal nor a chunk: what says of which call it is the answer.
_ENVELOPE = 64

# Bytes of the largest chunk that anybody may ask for: as much as one sealed body carries.
LARGEST_CHUNK: Final = LARGEST - OVERHEAD - _ENVELOPE


# Of what is lent, so many times its size may be asked for, and some bytes besides: asks are repeated where answers are
# late or lost.  Each answer costs a copy, a seal and a line of its own, and the ask next to nothing.
_TIMES = 8
_SPARE = 8 * LARGEST_CHUNK


class ChunkRefused(Error):
    """An ask is answered by no chunk; the message is for whoever has asked."""


class NotLent(ChunkRefused, LookupError):
    """Nothing is lent by that number: it never was, or has ended."""


class FetchedTooOften(ChunkRefused):
    """What is lent was asked for as often as it may be."""


class NoSuchChunk(ChunkRefused, ValueError):
    """What is lent has no such chunk: it lies beyond the end, or is larger than chunks may be."""


class Lent(Protocol):
    """One thing that is lent, as long as it is.

    Attributes:
        size: bytes.
    """

    size: int

    def read(self, offset: int, size: int, /) -> bytes:
        """A copy of so many bytes from there, which are within its size; fewer where it has become shorter."""
        ...

    def end(self) -> None:
        """Lets go of it, once."""
        ...


class _LentMemory:
    """Memory of this process: the buffer is held, so it neither moves nor becomes shorter."""

    def __init__(self, buffer: Buffer) -> None:
        view = memoryview(buffer)
        # Of one that is empty Python makes no other view.
        self._view = view.cast("B") if view.nbytes else memoryview(b"")
        self.size: int = self._view.nbytes

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._view[offset : offset + size])

    def end(self) -> None:
        self._view.release()


class _LentDataspace:
    """A dataspace, by a descriptor of its own.

    It is read, and not mapped.  One that is not sealed could not be sealed while somebody has it mapped for writing,
    and reading behind the end of one that another process has made shorter would kill this one (SIGBUS); nor does it
    then count as memory of this process.
    """

    def __init__(self, dataspace: Dataspace) -> None:
        self._dataspace = dataspace.dup()
        self.size: int = dataspace.size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._dataspace.fileno(), size, offset)

    def end(self) -> None:
        self._dataspace.close()


class Lender:
    """What one side of a link has lent to the other."""

    def __init__(self) -> None:
        self._lent: dict[int, Lent] = {}
        # Bytes of each that may still be asked for.
        self._credit: dict[int, int] = {}
        # From 1; none is used again: a late ask gets nothing of what was lent since.
        self._numbers = itertools.count(1)

    def lend(self, what: Dataspace | Buffer) -> int:
        """Lends something, until it is ended; the number that it is asked for by.

        A **dataspace** is borrowed: the lender has another descriptor of the same memory until the end, and the
        caller's may be closed at once.  **Another buffer** is held until the end: its owner can't release or resize
        it meanwhile.  Neither is copied.

        What can still be changed, as a bytearray or a dataspace that is not sealed, is read when a chunk is asked for:
        each chunk is of one moment, and the whole is of as many moments as it has chunks.

        Raises:
            TypeError: it is no buffer, or one whose items do not lie one after the other.
            TableFull: no room for a descriptor.
            Closed: the dataspace was closed.
        """
        lent: Lent = _LentDataspace(what) if isinstance(what, Dataspace) else _LentMemory(what)
        number = next(self._numbers)
        self._lent[number] = lent
        self._credit[number] = _TIMES * lent.size + _SPARE
        return number

    def chunk(self, number: int, offset: int, size: int) -> bytes:
        """A copy of so many bytes of what is lent by that number; asked by whoever is on the other side.

        Raises:
            NotLent: nothing is lent by that number.
            NoSuchChunk: it does not have these bytes, or has them no more; or they are more than
                :data:`LARGEST_CHUNK`, or less than 1.
            FetchedTooOften: it was asked for over and over.
        """
        lent = self._lent.get(number)
        if lent is None:
            raise NotLent(f"nothing is lent by the number {number}, or not any more")
        if not 1 <= size <= LARGEST_CHUNK:
            raise NoSuchChunk(f"a chunk has 1 to {LARGEST_CHUNK:,} bytes, and {size:,} were asked for")
        if offset < 0 or offset + size > lent.size:
            raise NoSuchChunk(f"{size:,} bytes were asked for at {offset:,}, of what has {lent.size:,} bytes")
        credit = self._credit[number] - size
        if credit < 0:
            raise FetchedTooOften(f"more than {_TIMES} times {lent.size:,} bytes were asked for, of what has that many")
        self._credit[number] = credit
        chunk = lent.read(offset, size)
        if len(chunk) < size:
            raise NoSuchChunk(f"what had {lent.size:,} bytes when it was lent has become shorter since")
        return chunk

    def end(self, number: int) -> None:
        """Lets go of what is lent by that number.  Does nothing where nothing is: it may be said twice."""
        if lent := self._lent.pop(number, None):
            del self._credit[number]
            lent.end()

    def end_all(self) -> None:
        """Lets go of all that is lent, as when the link has ended."""
        while self._lent:
            self.end(next(iter(self._lent)))

    def __len__(self) -> int:
        """How many things are lent."""
        return len(self._lent)
