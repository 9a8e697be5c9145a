"""What the bytes of an array mean: the format of its items, and how many there are along each dimension.

Only numbers.  A receiver that took any other format from a peer would take objects, which are addresses, too; and numpy
reads as much memory as the shape says, whatever there is.
"""

from __future__ import annotations

import math
import operator
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from capmarshal._kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, TypeAlias

    from typing_extensions import Buffer

    class _Array(Protocol):
        @property
        def __array_interface__(self) -> Any: ...

    # numpy's arrays are buffers, and say so to type checkers of programs for Python 3.12 or later only.
    if sys.version_info >= (3, 12):
        BufferOrArray: TypeAlias = Buffer
    else:
        BufferOrArray: TypeAlias = Buffer | _Array

# By the letter, which is struct's, and that of numpy's dtype.char: what numpy's __array_interface__ calls the kind, and
# the size of an item.
_FORMATS = {
    **{letter: ("i", struct.calcsize(letter)) for letter in "bhil"},
    **{letter: ("u", struct.calcsize(letter)) for letter in "BHIL"},
    **{letter: ("f", struct.calcsize(letter)) for letter in "efd"},
    "?": ("b", 1),
    "F": ("c", 8),
    "D": ("c", 16),
}
# As a buffer may call what has a letter above, too; what is one byte of text is a byte.
_ALSO = {"q": "l", "Q": "L", "n": "l", "N": "L", "Zf": "F", "Zd": "D", "c": "B"}
_LETTERS = {description: letter for letter, description in _FORMATS.items()}
# What a memoryview can be cast to.
_CASTS = frozenset("?bBhHiIlLfd")

_NATIVE = "<" if sys.byteorder == "little" else ">"
# As in a memoryview (PyBUF_MAX_NDIM), and in numpy since 2.0.
DIMENSIONS_MAX = 64
_WHAT = "the items of an array are bool, integers, floats or complex numbers of this machine's own byte order"


class ArrayLayout(NamedTuple):
    """Format and shape of an array whose items lie one after the other, the last index running fastest."""

    format: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: memoryview) -> ArrayLayout:
        """That of a buffer.

        Raises:
            TypeError: its items are no numbers.
        """
        given = array.format
        name = given[1:] if given[:1] in ("@", "=", _NATIVE) else given
        name = _ALSO.get(name, name)
        # The size of an item decides: a letter may have another one where the byte order is said before it.
        kind, size = _FORMATS.get(name, ("", 0))
        letter = _LETTERS.get((kind, array.itemsize))
        if letter is None or (size != array.itemsize and kind not in "iu"):
            raise TypeError(f"{_WHAT}, and not of the format {given!r}: convert the array, or pass its bytes")
        return cls(letter, array.shape or ())

    @classmethod
    def asked_for(cls, shape: int | Sequence[int], format: str) -> ArrayLayout:  # noqa: A002 - as struct and memoryview say
        """What somebody asks for, who makes one.

        Raises:
            TypeError, ValueError: there is no such.
        """
        dimensions = _as_dimensions(shape)
        if any(count < 0 for count in dimensions):
            raise ValueError(f"a size is 0 or more bytes, not {shape}; and so is each number of a shape")
        if len(dimensions) > DIMENSIONS_MAX:
            raise ValueError(f"an array has {DIMENSIONS_MAX} dimensions at most, not {len(dimensions)}")
        letter = _ALSO.get(format, format)
        if letter not in _FORMATS:
            letters = f"by one of the letters {' '.join(_FORMATS)}, as dtype.char of numpy's"
            raise ValueError(f"{_WHAT}, {letters}, and not {format!r}")
        asked = cls(letter, dimensions)
        # Of a larger one the kernel says that there is no memory.
        if not asked.size and asked._overflows():
            raise ValueError(f"an array of the shape {shape}, format {format!r}, has no items, and yet too many")
        return asked

    @property
    def is_bytes(self) -> bool:
        """Whether it is no array but bytes, of which there is nothing to say but how many."""
        return self.format == "B" and len(self.shape) == 1

    @property
    def size(self) -> int:
        """Bytes, however many that would be."""
        return math.prod(self.shape) * _FORMATS[self.format][1]

    @property
    def typestr(self) -> str:
        """What numpy's array interface calls the format."""
        kind, size = _FORMATS[self.format]
        return f"{'|' if size == 1 else _NATIVE}{kind}{size}"

    def _overflows(self) -> bool:
        """Whether what numpy computes of the dimensions does: those beside one of 0 count as well."""
        return math.prod(max(count, 1) for count in self.shape) * _FORMATS[self.format][1] > sys.maxsize

    def check(self, size: int) -> None:
        """Refuses what a stranger says of so many bytes, if it isn't so.

        Raises:
            ArgumentError: there is no such array in them.
        """
        if self.format not in _FORMATS:
            raise ArgumentError(f"an array came of the format {self.format!r}: {_WHAT}")
        if self._overflows() or self.size != size:
            raise ArgumentError(f"an array came of the shape {self.shape}, format {self.format!r}, in {size} bytes")

    def shaped(self, data: memoryview) -> memoryview:
        """A view of bytes as an array.

        Raises:
            BufferError: Python has no such view, of complex numbers and 16-bit floats, and of none along a dimension.
        """
        if self.is_bytes:
            return data
        if self.format not in _CASTS or not self.size:
            raise BufferError(
                f"no memoryview has {self.shape} items of format {self.format!r}; numpy.asarray() makes an array of it"
            )
        cast: Callable[..., memoryview] = data.cast  # typeshed has an overload for each letter
        return cast(self.format, self.shape)


def bytes_of(size: int) -> ArrayLayout:
    """That of what is no array but bytes."""
    return ArrayLayout("B", (size,))


def _as_dimensions(shape: Any) -> tuple[int, ...]:
    try:
        return tuple(map(operator.index, shape)) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    except TypeError:
        raise TypeError(f"a size is a number of bytes, not {shape!r}; and a shape is a tuple of numbers") from None
