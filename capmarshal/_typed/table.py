"""What can be in the table of a record: capabilities and descriptors, to which its payload refers by their index."""

from __future__ import annotations

import io
import socket
from collections.abc import Awaitable, Generator
from typing import Any

import msgspec

from capmarshal._capabilities.capability import Capability, Delegable
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.shared_buffer import SharedBuffer
from capmarshal._kernel.errors import name_of

# What to do with what is no argument or result, but would give one.
FORGOTTEN = ": await it for what it gives"

_ITERATED = ": make a list of it, or declare a result that is a stream, -> Iterator[...]"

_FOUND = msgspec.msgpack.Ext(0, b"")

# The annotations that stand for a descriptor; what is sent may be anything with a fileno().
DESCRIPTOR_TYPES = (Descriptor, Dataspace, SharedBuffer, io.BufferedReader, io.BufferedWriter, socket.socket)
# What has a descriptor for certain, and is no capability.
_FILES = frozenset((*DESCRIPTOR_TYPES, io.BufferedRandom, io.FileIO, io.TextIOWrapper))


def is_delegable(thing: Any) -> bool:
    """Whether it stands for a capability."""
    # By its type: a mock says that it is one.  To be told that something is no Delegable takes long.
    kind = type(thing)
    return kind not in _FILES and issubclass(kind, (Capability, Delegable))


def is_file(thing: Any) -> bool:
    """Whether it has a descriptor, and stands for no capability."""
    return type(thing) in _FILES or (hasattr(thing, "fileno") and not is_delegable(thing))


def unsendable(thing: Any) -> TypeError:
    """Says that it is neither data nor one of these."""
    advice = FORGOTTEN if isinstance(thing, Awaitable) else _ITERATED if isinstance(thing, Generator) else ""
    return TypeError(f"`{name_of(type(thing))}` objects cannot be sent{advice}")


class Search:
    """What is to go in a table, found without asking or touching any of it.

    Attributes:
        found: it, in order.
    """

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[Any] = []

    def add(self, thing: Any) -> msgspec.msgpack.Ext:
        """Notes it, and returns what stands for it and for no data."""
        self.found.append(thing)
        if not (is_delegable(thing) or is_file(thing)):
            raise unsendable(thing)
        return _FOUND
