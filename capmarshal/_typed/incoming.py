"""The table of a record that was received.  It owns all that is in it, until something is made of that."""

from __future__ import annotations

import io
import socket
from sys import getrefcount
from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._capabilities.capability import Capability
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.homecoming import CameHome
from capmarshal._capabilities.space import space
from capmarshal._descriptors import reaper
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.memory import Memory
from capmarshal._descriptors.moving import stolen
from capmarshal._descriptors.shared_buffer import Lease, SharedBuffer, buffer_of
from capmarshal._kernel.errors import ArgumentError, name_of, with_article
from capmarshal._protocol.wire import NO_BADGE, THIS_DOOR, Entry
from capmarshal._typed.colour import difference_of_colour
from capmarshal._typed.files import describe, open_received
from capmarshal._typed.marks import forwards
from capmarshal._typed.table import DESCRIPTOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capmarshal._capabilities.door import Door, DoorSender, Home
    from capmarshal._descriptors.array_layout import ArrayLayout
    from capmarshal._descriptors.closing_jobs import Sender
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._protocol.further_lines import Lent

# What decoding makes of a descriptor, which it then owns.
Made: TypeAlias = Descriptor | Dataspace | SharedBuffer | io.BufferedReader | io.BufferedWriter | socket.socket

# So many refer to what is in a list, and is looked at: the list, a variable, and the argument of getrefcount().
_DROPPED = 3

# Nothing is ever added to it.
_NO_RAWS: Mapping[int, io.RawIOBase] = {}


class Owned:
    """What was made of the descriptors of a record that was received.

    Attributes:
        produced: it; each owns one.  Of the call in a server, of the caller in a client.
        writers: those among them that have a buffer to flush.
        raws: by the id of a file, the raw one that it was made with: a method may detach the two.
        came_home: which objects of the server's own came with it, if any; of a call in a server.
        streams: what iterates over those that came; likewise, and the call's as the descriptors are.
    """

    __slots__ = ("came_home", "produced", "raws", "streams", "writers")

    def __init__(self) -> None:
        self.came_home: CameHome | None = None
        self.produced: list[Any] = []
        self.writers: Sequence[io.BufferedWriter] = ()
        self.raws: Mapping[int, io.RawIOBase] = _NO_RAWS
        # Any: a stream makes calls, of which this knows nothing.
        self.streams: Sequence[Any] = ()

    def note_raw(self, file: io.BufferedReader | io.BufferedWriter) -> None:
        """Notes what a file was made with."""
        self.raws = {**self.raws, id(file): file.raw}  # type: ignore[dict-item]  # typeshed has a protocol there

    def take(self, other: Owned) -> None:
        """Takes over all that another one has; what this one had is in that, or nobody's."""
        self.came_home, self.produced, self.streams = other.came_home, other.produced, other.streams
        self.raws, self.writers = other.raws, other.writers

    def close_all(self) -> None:
        """Closes it."""
        reaper.close(self.produced)


class Incoming(Owned):
    """The table of a record that was received.  Owns its descriptors until decoding makes something of them.

    Args:
        entries: the table.
        descriptors: taken.
        sender: who sent it, where the doors that it brings are to be counted.
        home: the entrypoint that is being called, whose handler gets its own objects themselves.
        closing: to whose account the closing goes of what is left over; the sender's, unless it is another.
        door: that the call went through, of an answer.
    """

    __slots__ = (
        "_closing",
        "_descriptors",
        "_doors",
        "_entries",
        "_home",
        "_sender",
        "_used",
    )

    def __init__(
        self,
        entries: list[Entry],
        descriptors: DescriptorList,
        sender: DoorSender | None = None,
        home: Home | None = None,
        closing: Sender | None = None,
        door: Door | None = None,
    ) -> None:
        super().__init__()
        self._entries = entries
        self._descriptors = descriptors
        self._sender = sender
        self._home = home
        self._closing = sender.closing if closing is None and sender is not None else closing
        self._doors: dict[int, Door] = {} if door is None else {THIS_DOOR: door}
        self._used: set[int] = set()

    @property
    def count(self) -> int:
        """How many descriptors came."""
        return len(self._descriptors)

    @property
    def entries(self) -> Sequence[Entry]:
        """The table."""
        return self._entries

    def make(self, kind: type, index: object) -> object:
        """What the annotation ``kind`` wants of the entry that stands at ``index`` in the table."""
        # True is an int by inheritance, and 1.0 equals one: neither is an index.
        if type(index) is not int or not 0 <= index < len(self._entries):
            if type(index) is not int:
                raise ArgumentError(
                    f"{with_article(type(index).__name__)} came where {with_article(name_of(kind))} is due"
                )
            raise ArgumentError(f"{index} is no index into a table of {len(self._entries)}")
        if index in self._used:
            raise ArgumentError(f"entry {index} of the table is used twice")
        self._used.add(index)
        slot, badge, array, lease = self._entries[index]
        if issubclass(kind, DESCRIPTOR_TYPES):
            if badge != NO_BADGE:
                raise ArgumentError(f"a capability came where {_name(kind)} is due")
            if lease is not None or kind is SharedBuffer:
                return self._make_buffer(kind, slot, array, lease)
            return self._make_file(kind, slot, array)
        if badge == NO_BADGE:
            raise ArgumentError(f"a plain descriptor came where {_name(kind)} is due")
        return self._make_capability(kind, self._door(slot), badge)

    def _make_file(self, kind: type, slot: int, array: ArrayLayout | None) -> Made:
        descriptor = self._descriptors.steal(slot)
        try:
            made = _made(kind, descriptor, array)
        except BaseException:
            self.produced.append(descriptor)
            raise
        self.produced.append(made)
        if isinstance(made, (io.BufferedReader, io.BufferedWriter)):
            self.note_raw(made)
        if isinstance(made, io.BufferedWriter):
            self.writers = (*self.writers, made)
        return made

    def _make_buffer(self, kind: type, slot: int, array: ArrayLayout | None, lease: Lent | None) -> SharedBuffer:
        if lease is None:
            raise ArgumentError("a plain descriptor came where a shared buffer is due")
        if kind is not SharedBuffer:
            raise ArgumentError(f"a shared buffer came where {_name(kind)} is due")
        memory = stolen(self._descriptors.steal(slot), Memory)
        its_lease = stolen(self._descriptors.steal(lease.slot), Lease)
        # The buffer's from here on, and closed where it would be.
        self.produced += (memory, its_lease)
        return buffer_of(memory, its_lease, lease.pool, array)

    def _door(self, slot: int) -> Door:
        """The door in a slot; several capabilities may share it."""
        door = self._doors.get(slot)
        if door is None:
            descriptor = self._descriptors.steal(slot)
            try:
                door = self._doors[slot] = space.receive_door(descriptor, self._sender)
            except BaseException:
                self.produced.append(descriptor)
                raise
        return door

    def _make_capability(self, kind: type, door: Door, badge: bytes) -> object:
        capability = space.receive(door, badge)
        if kind is Capability:
            return capability
        home = self._home
        # Where some methods can be called only, it is called through the door, and is not the object itself.
        if home is not None and home_of(door) is home and home.lets_call_all(kept_under := door.kept_under(badge)):
            managed = home.object_behind(kept_under)
            if not isinstance(managed, kind):
                if forwards(type(managed)):
                    return capability.cast(kind)
                raise ArgumentError(
                    f"the object that came home is {_name(type(managed))}, not {_name(kind)}"
                    f"{difference_of_colour(type(managed), kind)}"
                )
            if self.came_home is None:
                self.came_home = CameHome()
            self.came_home.note(managed, (door, badge))
            return managed
        return capability.cast(kind)

    def check_used(self) -> None:
        """Refuses a table of which decoding has left something over.

        Raises:
            ArgumentError: something was sent where the annotations say data: its index passed for an int.
        """
        if len(self._used) < len(self._entries):
            raise ArgumentError("a descriptor or capability came where the interface says data")

    def close_rest(self) -> None:
        """Closes the descriptors that nothing refers to."""
        if self._descriptors:
            reaper.close([self._descriptors], self._closing)

    def own_rest(self) -> None:
        """Has what nothing refers to closed with what was made, by whoever closes that."""
        if self._descriptors:
            self.produced.append(self._descriptors)

    def close_dropped(self) -> None:
        """Closes what decoding made and let go of: of two values under one key of a map, there is one."""
        dropped = [made for made in self.produced if getrefcount(made) == _DROPPED]
        if dropped:
            reaper.close(dropped, self._closing)

    def close_all(self) -> None:
        """Closes everything, also what decoding has made."""
        reaper.close([*self.produced, self._descriptors], self._closing)


def _made(kind: type, descriptor: Descriptor, array: ArrayLayout | None) -> Made:
    """What the annotation ``kind`` wants of a descriptor, which it takes on success.

    Args:
        kind: the annotation.
        descriptor: taken on success.
        array: what its memory is said to hold.
    """
    if kind is Descriptor:
        return descriptor
    if kind is Dataspace:
        return Dataspace.receive(descriptor, array)
    if kind is socket.socket:
        try:
            return descriptor.socket()
        except OSError:
            raise ArgumentError(f"a socket is due; what came is {describe(descriptor.fileno())}") from None
    made: io.BufferedReader | io.BufferedWriter = open_received(descriptor, "rb" if kind is io.BufferedReader else "wb")
    return made


def _name(kind: type) -> str:
    return with_article(name_of(kind))
