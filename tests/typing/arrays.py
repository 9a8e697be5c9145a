"""Arrays of numpy's, as mypy and pyright see them.  Never run: test_typing.py has both check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import numpy as np

import capmarshal as cm

if TYPE_CHECKING:
    from numpy.typing import NDArray


def passed(array: NDArray[np.float32], buffer: cm.SharedBuffer) -> None:
    """An array is a buffer, on every Python, and what is made of one an array."""
    with cm.Dataspace.from_buffer(array) as dataspace:
        assert_type(dataspace, cm.Dataspace)
        read: NDArray[np.float32] = np.asarray(dataspace)
        shared: NDArray[np.float32] = np.asarray(buffer)
        shared[:] = read
    with cm.Dataspace.create(array.shape, "f") as created:
        created.write(array)
    cm.Dataspace.from_buffer("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cm.Dataspace.from_buffer([1.0])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
