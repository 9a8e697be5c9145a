"""How a descriptor gets its first owner, and another one.

Ctrl-C raises where a call ends, and there another thread may fork too.  So a descriptor is written to memory where it
can be found in the same crossing that makes it, and moves by one assignment in which there is no call: at each moment
it is in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import check
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

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
