"""What the benchmark `transfer` hands over: made once, and lent to every contender."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import capmarshal as cm

if TYPE_CHECKING:
    from collections.abc import Sequence


class Goods:
    """Bytes, dataspaces, descriptors.

    Args:
        sizes: of the dataspaces, in bytes.
        inline: the most bytes that are handed over by value.
        count: the most descriptors.
    """

    def __init__(self, sizes: Sequence[int], inline: int, count: int) -> None:
        # A pattern whose period is no power of two: the last byte of each size is another one.
        pattern = bytes(range(251))
        self.data = memoryview(bytearray(pattern) * (inline // len(pattern) + 1))
        self._dataspaces = {size: self._make_dataspace(size) for size in sizes}
        # A file each, as somebody would have who hands over so many.
        self.descriptors = [cm.Descriptor(os.memfd_create("transfer", os.MFD_CLOEXEC)) for _ in range(count)]
        self.numbers = [descriptor.fileno() for descriptor in self.descriptors]

    def _make_dataspace(self, size: int) -> cm.Dataspace:
        made = cm.Dataspace.create(size)
        step = len(self.data)
        for start in range(0, size, step):
            made.write(self.data[: min(step, size - start)], start)
        made.seal()
        return made

    def dataspace(self, size: int) -> cm.Dataspace:
        """The one of that size."""
        return self._dataspaces[size]

    def close(self) -> None:
        """Closes all of it."""
        for dataspace in self._dataspaces.values():
            dataspace.close()
        for descriptor in self.descriptors:
            descriptor.close()
