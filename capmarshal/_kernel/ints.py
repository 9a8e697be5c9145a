"""Arrays of C's ints, made of Python's: where there are hundreds, cffi alone takes twice as long."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from capmarshal._kernel.native import ffi

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._kernel.native import CData

# From so many on it pays; a function of C's is as well given a list.
MANY = 8

_from_buffer, _INTS = ffi.from_buffer, ffi.typeof("int[]")
# By how many there are.
_packers: dict[int, Callable[..., bytes]] = {}


def array_of(numbers: Sequence[int]) -> CData:
    """The array, to be read; of few different lengths, since something is kept for each.

    Raises:
        struct.error: one is more than an int of C holds, or none.
    """
    count = len(numbers)
    pack = _packers.get(count)
    if pack is None:
        pack = _packers[count] = Struct(f"{count}i").pack
    return _from_buffer(_INTS, pack(*numbers))
