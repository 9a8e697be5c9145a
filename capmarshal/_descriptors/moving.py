"""How a descriptor gets its first owner, and another one.

Ctrl-C raises where a call ends, and there another thread may fork too.  So a descriptor is written to memory where it
can be found in the same crossing that makes it, and moves by one assignment in which there is no call: at each moment
it is in one place.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Protocol, TypeVar

from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import check
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capmarshal._kernel.native import CData


class Owner(Protocol):
    """A :class:`~capmarshal._descriptors.descriptor.Descriptor`."""

    _number: int


T = TypeVar("T", bound=Owner)

_LAST_STANDARD = 2


def made(make: Callable[[CData], int], doing: str, kind: type[T], calls: str = "") -> T:
    """A descriptor that a C function makes and writes to a place, with an owner from the moment that it is made.

    Args:
        make: the function.
        doing: what for, as "making a dataspace".
        kind: of the owner.
        calls: where that can't be done without it: which system call makes it.

    Raises:
        TableFull, KernelError: nothing was made.
    """
    place = ffi.new("int *", -1)
    try:
        check(process.make_with_room(lambda: make(place)), doing, calls)
        return moved_from(place, kind)
    finally:
        # Ctrl-C came between the two.
        if place[0] >= 0:
            lib.lx_close(place[0])


@contextlib.contextmanager
def for_a_block(make: Callable[[CData], int], doing: str, calls: str = "") -> Iterator[int]:
    """As :func:`made`, borrowed for a block, which then closes it; waits for no room in the table.

    A block that Ctrl-C keeps from being entered, or left, goes with what it has open.
    """
    place = ffi.new("int *", -1)
    try:
        check(make(place), doing, calls)
        yield place[0]
    finally:
        if place[0] >= 0:
            lib.lx_close(place[0])


@contextlib.contextmanager
def opened(path: str | bytes | os.PathLike[str], flags: int, mode: int = 0o777) -> Iterator[int]:
    """A file, opened as by ``os.open()``, borrowed for a block, as by :func:`for_a_block`.

    Raises:
        OSError: as ``os.open()`` raises it; and where the block's end finds that not all was written, as on NFS.
    """
    place = ffi.new("int *", -1)
    try:
        _open_at(place, path, flags, mode)
        yield place[0]
    finally:
        # No call of a function of Python's, where Ctrl-C may come before its first step.
        if place[0] >= 0:
            os.close(place[0])


def file_made(path: str | bytes | os.PathLike[str], flags: int, mode: int, kind: type[T]) -> T:
    """A file, opened as by ``os.open()``, with an owner from the moment that it is open.

    Raises:
        OSError: as ``os.open()`` raises it.
    """
    place = ffi.new("int *", -1)
    try:
        _open_at(place, path, flags, mode)
        return moved_from(place, kind)
    finally:
        if place[0] >= 0:
            lib.lx_close(place[0])


def _open_at(place: CData, path: str | bytes | os.PathLike[str], flags: int, mode: int) -> None:
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    # Interrupted, it is tried again, by when signal handlers have run.
    while (result := lib.cm_make_file(place, name, flags, mode)) == -errno.EINTR:
        pass
    if result < 0:
        raise OSError(-result, os.strerror(-result), os.fspath(path))


def moved_from(place: CData, kind: type[T]) -> T:
    """Moves the descriptor that stands at a place in C's memory to an owner of its own; -1 stands there after that."""
    # By its own __new__: a lease has more in it than a number.
    owner = kind.__new__(kind)
    owner._number, place[0] = place[0], -1  # noqa: SLF001 - moved
    return owner


def stolen(descriptor: Owner, kind: type[T]) -> T:
    """Moves what ``descriptor`` owns, if anything, to another owner of that kind."""
    owner = kind.__new__(kind)
    owner._number, descriptor._number = descriptor._number, -1  # noqa: SLF001 - likewise
    return owner


def move_above_standard(descriptor: Owner) -> None:
    """Gives it a number that is none of the standard streams', if it has one of those.

    Raises:
        TableFull: no room in the descriptor table; it is as it was.
    """
    if descriptor._number > _LAST_STANDARD:  # noqa: SLF001 - only read
        return
    place = ffi.new("int *", -1)
    place[0], descriptor._number = descriptor._number, -1  # noqa: SLF001 - likewise
    try:
        check(
            process.make_with_room(lambda: lib.cm_above_standard(place)),
            "moving a descriptor above the standard streams",
        )
    finally:
        descriptor._number, place[0] = place[0], -1  # noqa: SLF001 - likewise
