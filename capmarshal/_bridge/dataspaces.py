"""Dataspaces of another machine: what is said of one, and an equal one made here."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import msgspec

from capmarshal import ArgumentError, Dataspace

from .fetching import fetch

if TYPE_CHECKING:
    from .fetching import Ask


class Described(msgspec.Struct, array_like=True, frozen=True):
    """What is said of one.

    Attributes:
        shape: as that of a Dataspace.
        format: likewise.
    """

    shape: list[int]
    format: str


def described(dataspace: Dataspace) -> Described:
    """What is said of one."""
    return Described(list(dataspace.shape), dataspace.format)


async def copied(what: Described, ask: Ask, most: int) -> Dataspace:
    """An equal one, sealed; it is the caller's.

    Raises:
        ArgumentError: it would have more bytes than that, or is none.
        KernelError, TableFull: there is no room for it.
    """
    try:
        size = math.prod(what.shape) * struct.calcsize(what.format)
        if not 0 <= size <= most:
            raise ArgumentError(f"a dataspace of {size:,} bytes, and it may have {most:,}")
        made = Dataspace.create(what.shape, what.format)
    except (ValueError, TypeError, struct.error) as error:
        raise ArgumentError(f"no such dataspace: {error}") from None
    try:
        await fetch(ask, made.size, made)
        made.seal()
    except BaseException:
        made.close()
        raise
    return made
