"""The table of a record: the capabilities and descriptors that its payload refers to by their index.

A table that is sent borrows all that is in it; one that was received owns it, until something is made of it.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Awaitable, Generator
from sys import getrefcount
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from capmarshal._capabilities.capability import Capability, Delegable, Proxy, badge_of, open_door_of
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.space import capability_of, space
from capmarshal._descriptors import reaper
from capmarshal._descriptors.dataspace import Dataspace, array_in
from capmarshal._descriptors.descriptor import Descriptor, numbers_of
from capmarshal._descriptors.moving import stolen
from capmarshal._descriptors.shared_buffer import Lease, SharedBuffer, buffer_of, parts_of
from capmarshal._kernel.errors import ArgumentError, name_of, with_article
from capmarshal._protocol import further_lines
from capmarshal._protocol.further_lines import Lent
from capmarshal._protocol.wire import ENTRIES_MAX, NO_BADGE, THIS_DOOR, Entry, plain
from capmarshal._typed.colour import difference_of_colour
from capmarshal._typed.files import describe, open_received
from capmarshal._typed.preparing import number_to_send, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capmarshal._capabilities.door import Door, DoorSender, Home
    from capmarshal._descriptors.array_layout import ArrayLayout
    from capmarshal._descriptors.closing_jobs import Sender
    from capmarshal._descriptors.descriptor_list import DescriptorList

# What decoding makes of a descriptor, which it then owns.
Made: TypeAlias = Descriptor | Dataspace | SharedBuffer | io.BufferedReader | io.BufferedWriter | socket.socket

# So many refer to what is in a list, and is looked at: the list, a variable, and the argument of getrefcount().
_DROPPED = 3

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


class Outgoing:
    """The table of a record that is being made: what its payload refers to.  Borrows all of it.

    Args:
        serving: it is an answer's: the thread that makes it serves others.
        hand_out: gives an object that nobody manages a capability; None: there is none for it.
        hand_under: gives whatever stands for a capability a badge of the door that the call came through; None: it has
            that of its own door.

    Attributes:
        entries: the table.
        numbers: the descriptors to send.
        files: by slot, what the descriptors belong to, kept alive until they are sent; None where that is a door.
        doors: whose client ends are among them, likewise.
        refused: what could not be entered, if anything.
    """

    __slots__ = (
        "_further_lines",
        "_hand_out",
        "_hand_under",
        "_handed_out",
        "_serving",
        "_slots",
        "doors",
        "entries",
        "files",
        "numbers",
        "refused",
    )

    def __init__(
        self,
        *,
        serving: bool = False,
        hand_out: Callable[[Any], Capability] | None = None,
        hand_under: Callable[[Any], bytes] | None = None,
    ) -> None:
        self._serving = serving
        self._hand_out, self._hand_under = hand_out, hand_under
        # By the id of such an object: it may be in there twice.
        self._handed_out: dict[int, Capability] | None = None
        self.entries: list[Entry] = []
        self.numbers: list[int] = []
        self.files: list[Any] = []
        self.doors: list[Door] = []
        self._slots: dict[int, int] = {}
        # Of the table, beside one for each entry.
        self._further_lines = 0
        self.refused: Any = None

    @classmethod
    def of(cls, descriptors: list[Descriptor]) -> Outgoing:
        """The table of an answer that is descriptors, in order."""
        made = cls(serving=True)
        made.numbers = numbers_of(descriptors) or []
        made.entries, made.files = plain(len(made.numbers)), descriptors[: len(made.numbers)]
        return made

    def add(self, thing: Any) -> int:
        """Enters a capability or a descriptor in the table, and returns its index there."""
        try:
            return self._add(thing)
        except BaseException:
            self.refused = thing
            raise

    def _add(self, thing: Any) -> int:
        self._check_room(1)
        if is_delegable(thing):
            if self._hand_under is not None:
                self.entries.append(Entry(THIS_DOOR, self._hand_under(thing)))
            else:
                self._add_capability(self._capability_of(thing))
        elif isinstance(thing, SharedBuffer):
            self._add_buffer(thing)
        elif is_file(thing):
            # Before anything fails: what a method returns is the call's to close, sent or not.
            self.files.append(thing)
            # First: to be asked for it makes some objects a file, and says best that one is closed.
            number = number_to_send(thing, serving=self._serving)
            if isinstance(thing, Dataspace):
                self._add_dataspace(thing, number)
            else:
                prepare(thing, serving=self._serving)
                self.entries.append(Entry(self._add_number(number), NO_BADGE))
        else:
            raise unsendable(thing)
        return len(self.entries) - 1

    def _check_room(self, lines: int) -> None:
        if len(self.entries) + self._further_lines + lines > ENTRIES_MAX:
            raise ValueError(f"more than {ENTRIES_MAX} capabilities and descriptors in one call")

    def _add_dataspace(self, dataspace: Dataspace, number: int) -> None:
        if not dataspace.sealed:
            raise TypeError("a dataspace must be sealed before it is handed over")
        array = array_in(dataspace)
        self._make_room(array, None)
        self.entries.append(Entry(self._add_number(number), NO_BADGE, array))

    def _add_buffer(self, buffer: SharedBuffer) -> None:
        # Asked for it like any file: who has closed one is told so in the same words.
        number = number_to_send(buffer, serving=self._serving)
        memory, lease, pool, array = parts_of(buffer)
        self.files += (memory, lease)
        slot, goes_with_it = self._add_number(number), Lent(self._add_number(lease.fileno()), pool)
        self._make_room(array, goes_with_it)
        self.entries.append(Entry(slot, NO_BADGE, array, goes_with_it))

    def _make_room(self, array: ArrayLayout | None, lease: Lent | None) -> None:
        lines = further_lines.count(array, lease)
        self._check_room(1 + lines)
        self._further_lines += lines

    def _capability_of(self, thing: Any) -> Capability:
        """Its capability, which an object of a result is given where nobody manages it."""
        if self._hand_out is None or issubclass(type(thing), (Capability, Proxy)) or id(thing) in space.managed:
            return capability_of(thing)
        if self._handed_out is None:
            self._handed_out = {}
        made = self._handed_out.get(id(thing))
        if made is None:
            made = self._handed_out[id(thing)] = self._hand_out(thing)
        return made

    def _add_capability(self, capability: Capability) -> None:
        door = open_door_of(capability)
        slot = self._slots.get(door.key)
        if slot is None:
            slot = self._slots[door.key] = self._add_number(door.number)
            self.doors.append(door)
            self.files.append(None)
        self.entries.append(Entry(slot, badge_of(capability)))

    def _add_number(self, number: int) -> int:
        self.numbers.append(number)
        return len(self.numbers) - 1


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


# Of a record that is data alone.  Nothing is ever added to it.
NOTHING = Outgoing()


# Nothing is ever added to it.
_NO_RAWS: Mapping[int, io.RawIOBase] = {}


class Owned:
    """What was made of the descriptors of a record that was received.

    Attributes:
        produced: it; each owns one.  Of the call in a server, of the caller in a client.
        writers: those among them that have a buffer to flush.
        raws: by the id of a file, the raw one that it was made with: a method may detach the two.
    """

    __slots__ = ("produced", "raws", "writers")

    def __init__(self) -> None:
        self.produced: list[Any] = []
        self.writers: Sequence[io.BufferedWriter] = ()
        self.raws: Mapping[int, io.RawIOBase] = _NO_RAWS

    def note_raw(self, file: io.BufferedReader | io.BufferedWriter) -> None:
        """Notes what a file was made with."""
        self.raws = {**self.raws, id(file): file.raw}  # type: ignore[dict-item]  # typeshed has a protocol there

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
        memory = self._descriptors.steal(slot)
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
                raise ArgumentError(
                    f"the object that came home is {_name(type(managed))}, not {_name(kind)}"
                    f"{difference_of_colour(type(managed), kind)}"
                )
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
