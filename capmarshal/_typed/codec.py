"""Arguments and results to payload and table, and back.

msgspec does the bytes.  Where it meets a capability or a descriptor, its hooks are called: encoding, the thing goes
into the table and its index into the payload; decoding, the annotation says what is made of the table's entry.  A
hook knows its record by a variable of the thread that is set for the time of the call and put back afterwards, so that
a signal handler that calls in between does no harm.
"""

from __future__ import annotations

import fcntl
import io
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from capmarshal._capabilities.capability import Capability, Delegable, badge_of, open_door_of
from capmarshal._capabilities.space import capability_of, space
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor, number_of, numbers_of
from capmarshal._kernel.errors import ArgumentError
from capmarshal._kernel.native import ffi, lib
from capmarshal._protocol.wire import ENTRIES_MAX, NO_BADGE, PLAIN, Entry, is_plain
from capmarshal._typed.lists import Lists

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._capabilities.door import Door, DoorSender, Home

# Stands in a received table for a descriptor that was taken out of it.
_NONE = Descriptor.of_none()

# The indices that lists of descriptors begin with: kept, since to make 253 of them costs a microsecond.
_INDICES = list(range(len(PLAIN)))

# What decoding made of a table: each owns a descriptor.
Owned: TypeAlias = Descriptor | Dataspace | io.BufferedReader | io.BufferedWriter | socket.socket

# The annotations that stand for a descriptor; what is sent may be anything with a fileno().
DESCRIPTOR_TYPES = (Descriptor, Dataspace, io.BufferedReader, io.BufferedWriter, socket.socket)


class _Current(threading.local):
    outgoing: Outgoing | None = None
    incoming: Incoming | None = None


_current = _Current()


def _prepare_file(file: Any) -> None:
    """Brings the open file, which both sides will share, to where the program is in it.

    Raises:
        ValueError: nobody knows where that is (a text file in the middle of an iteration), or it cannot be brought
            there (a file of /proc that has been read from).
    """
    # By what it can do, not by its class: the files of tempfile are wrappers.  A raw file has no buffer.
    if isinstance(file, io.RawIOBase) or not hasattr(file, "seekable"):
        return
    if file.writable():
        file.flush()
    if file.readable() and file.seekable():
        try:
            position = file.tell()
            if position != os.lseek(file.fileno(), 0, os.SEEK_CUR):
                # It has read ahead.  Only a seek from the end is sure to go past its buffer to the kernel; a fresh
                # reader is left alone, since the files of /proc have no end to seek from (EINVAL, seq_lseek()).
                file.seek(0, os.SEEK_END)
                file.seek(position)
        except OSError as error:
            raise ValueError(f"where the program is in the file: {error}") from error


class Outgoing:
    """The table of a record that is being made: what its payload refers to.  Borrows all of it.

    Attributes:
        entries: the table.
        numbers: the descriptors to send.
        files: by slot, what the descriptors belong to, kept alive until they are sent; None where that is a door.
        doors: whose client ends are among them, likewise.
    """

    __slots__ = ("_slots", "doors", "entries", "files", "numbers")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.numbers: list[int] = []
        self.files: list[Any] = []
        self.doors: list[Door] = []
        self._slots: dict[int, int] = {}

    def add(self, thing: Any) -> int:
        """Enters a capability or a descriptor; its index."""
        if len(self.entries) == ENTRIES_MAX:
            raise ValueError(f"more than {ENTRIES_MAX} capabilities and descriptors in one call")
        # The commonest first: to be told that something is no Delegable takes longer than all else here.
        if type(thing) is Descriptor:
            self.files.append(thing)
            self.entries.append(Entry(self._add_number(thing.fileno()), NO_BADGE))
        elif isinstance(thing, Capability):
            self._add_capability(thing)
        elif isinstance(thing, Delegable):
            self._add_capability(capability_of(thing))
        elif hasattr(thing, "fileno"):
            # Before anything fails: what a method returns is the call's to close, sent or not.
            self.files.append(thing)
            if isinstance(thing, Dataspace) and not thing.sealed:
                raise TypeError("a dataspace must be sealed before it is handed over")
            # First: to be asked for it makes some objects a file, and says best that one is closed.
            number = number_of(thing)
            _prepare_file(thing)
            self.entries.append(Entry(self._add_number(number), NO_BADGE))
        else:
            raise TypeError(f"`{type(thing).__qualname__}` objects cannot be sent")
        return len(self.entries) - 1

    def add_list(self, things: list[Any]) -> list[Any]:
        """Enters all of ``things`` at once: their indices; or, where they are not all descriptors, ``things``."""
        numbers = numbers_of(things)
        first = len(self.entries)
        if numbers is None or first + len(things) > ENTRIES_MAX:
            return things
        slots = range(len(self.numbers), len(self.numbers) + len(things))
        self.numbers += numbers
        self.files += things
        if slots.start == first and slots.stop <= len(PLAIN):
            self.entries += PLAIN[first : slots.stop]
            return _INDICES[first : slots.stop]
        self.entries += [Entry(slot, NO_BADGE) for slot in slots]
        return list(range(first, first + len(things)))

    def _add_capability(self, capability: Capability) -> None:
        door = open_door_of(capability)
        slot = self._slots.get(door.cookie)
        if slot is None:
            slot = self._slots[door.cookie] = self._add_number(door.number)
            self.doors.append(door)
            self.files.append(None)
        self.entries.append(Entry(slot, badge_of(capability)))

    def _add_number(self, number: int) -> int:
        self.numbers.append(number)
        return len(self.numbers) - 1


# Of a record that is data alone.  Nothing is ever added to it.
NOTHING = Outgoing()


class Incoming:
    """The table of a record that was received.  Owns its descriptors until decoding makes something of them.

    Args:
        entries: the table.
        descriptors: taken.
        sender: who sent it, where the doors that it brings are to be counted.
        home: the entrypoint that is being called, whose handler gets its own objects themselves.

    Attributes:
        produced: what decoding made of descriptors; each owns one.  Of the call in a server, of the caller in a client.
        writers: those among them that have a buffer to flush.
    """

    __slots__ = (
        "_descriptors", "_doors", "_entries", "_home", "_listed", "_sender", "_used", "produced", "writers",
    )  # fmt: skip

    def __init__(
        self,
        entries: list[Entry],
        descriptors: list[Descriptor],
        sender: DoorSender | None = None,
        home: Home | None = None,
    ) -> None:
        self._entries = entries
        self._descriptors = descriptors
        self._sender = sender
        self._home = home
        self._doors: dict[int, Door] = {}
        self._used: set[int] = set()
        # So many at the head of the table have been taken by make_list().
        self._listed = 0
        self.produced: list[Owned] = []
        self.writers: Sequence[io.BufferedWriter] = ()

    def make(self, kind: type, index: object) -> object:
        """What the annotation ``kind`` wants of the entry that stands at ``index`` in the table."""
        # True is an int by inheritance, and 1.0 equals one: neither is an index.
        if type(index) is not int or not 0 <= index < len(self._entries):
            what = str(index) if type(index) is int else f"a {type(index).__name__}"
            raise ArgumentError(f"{what} is no index into a table of {len(self._entries)}")
        if index in self._used or index < self._listed:
            raise ArgumentError(f"entry {index} of the table is used twice")
        self._used.add(index)
        slot, badge = self._entries[index]
        if issubclass(kind, DESCRIPTOR_TYPES):
            if badge != NO_BADGE:
                raise ArgumentError(f"a capability came where {_name(kind)} is due")
            return self._make_file(kind, slot)
        if badge == NO_BADGE:
            raise ArgumentError(f"a plain descriptor came where {_name(kind)} is due")
        return self._make_capability(kind, self._door(slot), badge)

    def make_list(self, indices: list[int]) -> list[Descriptor]:
        """As :meth:`make` for each, of kind :class:`Descriptor`.

        Raises:
            ValidationError: one of them is no index; names the place in the list.
        """
        stop = self._listed + len(indices)
        in_order = stop <= min(len(self._entries), len(PLAIN)) and indices == _INDICES[self._listed : stop]
        if self._used or not in_order or not is_plain(self._entries[:stop]):
            return [self._make_item(at, index) for at, index in enumerate(indices)]
        made = self._descriptors[self._listed : stop]
        # In this order: what Ctrl-C leaves in both places is closed once.
        self.produced += made
        self._listed = stop
        return made

    def _make_item(self, at: int, index: int) -> Descriptor:
        try:
            return self.make(Descriptor, index)  # type: ignore[return-value]  # of the kind that it is given
        except ArgumentError as error:
            raise msgspec.ValidationError(f"{error} - at `$[{at}]`") from error

    def _make_file(self, kind: type, slot: int) -> Owned:
        descriptor = self._descriptors[slot]
        if kind is Descriptor:
            # Moves from this table to the call.
            self.produced.append(descriptor)
            self._descriptors[slot] = _NONE
            return descriptor
        made: Owned
        if kind is Dataspace:
            made = Dataspace.receive(descriptor)
        elif kind is socket.socket:
            try:
                made = descriptor.socket()
            except OSError:
                raise ArgumentError(f"a socket is due; what came is {_describe(descriptor.fileno())}") from None
        else:
            made = _open(descriptor, "rb" if kind is io.BufferedReader else "wb")
        self.produced.append(made)
        if isinstance(made, io.BufferedWriter):
            self.writers = (*self.writers, made)
        return made

    def _door(self, slot: int) -> Door:
        """The door in a slot; several capabilities may share it."""
        door = self._doors.get(slot)
        if door is None:
            door = self._doors[slot] = space.receive_door(self._descriptors[slot], self._sender)
        return door

    def _make_capability(self, kind: type, door: Door, badge: bytes) -> object:
        capability = space.receive(door, badge)
        if kind is Capability:
            return capability
        if self._home is not None and door.home is self._home:
            managed = self._home.object_behind(badge)
            if not isinstance(managed, kind):
                raise ArgumentError(f"the object that came home is a {_name(type(managed))}, not a {_name(kind)}")
            return managed
        return capability.cast(kind)

    def check_used(self) -> None:
        """Refuses a table of which decoding has left something over.

        Raises:
            ArgumentError: something was sent where the annotations say data: its index passed for an int.
        """
        if len(self._used) + self._listed < len(self._entries):
            raise ArgumentError("a descriptor or capability came where the interface says data")

    def close_rest(self) -> None:
        """Closes the descriptors that nothing refers to."""
        rest = [descriptor for descriptor in self._descriptors[self._listed :] if not descriptor.closed]
        if rest:
            _reaper.close_files(rest)

    def close_all(self) -> None:
        """Closes everything, also what decoding has made."""
        _reaper.close_files(self.produced)
        self.close_rest()


def _name(kind: type) -> str:
    return f"a {kind.__module__}.{kind.__qualname__}".replace("_io.", "io.").replace("builtins.", "")


def _open(descriptor: Descriptor, mode: str) -> Any:
    """A file object for a received descriptor, which then owns it."""
    number = descriptor.fileno()
    flags = lib.lx_fcntl(number, fcntl.F_GETFL, 0)
    if flags & os.O_PATH or flags & os.O_ACCMODE not in (os.O_RDWR, os.O_RDONLY if mode == "rb" else os.O_WRONLY):
        wanted = "reading" if mode == "rb" else "writing"
        raise ArgumentError(f"a file open for {wanted} is due; what came is {_describe(number)}")
    try:
        return descriptor.open(mode)
    except OSError as error:
        raise ArgumentError(f"a file is due; what came is {_describe(number)}: {error.strerror}") from None


def _target(number: int) -> str:
    """What /proc calls a descriptor.  F_GETPIPE_SZ would wait for whoever is writing to a pipe."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - pathlib is not imported, and this is no path
    except OSError:
        return ""


def _describe(number: int) -> str:
    """What a descriptor is, in words; found out without anything that a file system's server could delay."""
    flags = lib.lx_fcntl(number, fcntl.F_GETFL, 0)
    value = ffi.new("int *")
    length = ffi.new("unsigned int *", ffi.sizeof("int"))
    if lib.lx_getsockopt(number, socket.SOL_SOCKET, socket.SO_TYPE, value, length) == 0:
        return f"a socket of type {socket.SocketKind(value[0]).name.removeprefix('SOCK_')}"
    access = {os.O_RDONLY: "reading only", os.O_WRONLY: "writing only"}.get(flags & os.O_ACCMODE, "both ways")
    kind = "a file"
    if flags & os.O_PATH:
        return "a mere path (O_PATH)"
    if flags & os.O_DIRECTORY:
        return "a directory"
    if _target(number).startswith("pipe:"):
        kind = "a pipe"
    elif lib.lx_fcntl(number, fcntl.F_GET_SEALS, 0) >= 0:
        kind = "a memfd"
    return f"{kind} open for {access}"


def _encode_hook(thing: Any) -> int:
    outgoing = _current.outgoing
    if outgoing is None:
        raise TypeError(f"`{type(thing).__qualname__}` objects cannot be sent")
    return outgoing.add(thing)


def _decode_hook(kind: type, index: Any) -> Any:
    incoming = _current.incoming
    if incoming is None:
        raise TypeError(f"a {kind.__qualname__} cannot be received here")
    return incoming.make(kind, index)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)

# The payload for what is data alone; raises anything that msgspec raises for what is not.
encode_data: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def encode(value: Any, outgoing: Outgoing) -> bytes:
    """The payload for ``value``; what is no data goes into ``outgoing``.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: something in it cannot be sent.
    """
    before = _current.outgoing
    _current.outgoing = outgoing
    try:
        return _encoder.encode(value)
    finally:
        _current.outgoing = before


def encoder_for(annotation: Any) -> Callable[[Any, Outgoing], bytes]:
    """:func:`encode` for values of which ``annotation`` says what they are."""
    lists = Lists(annotation)
    if not lists:
        return encode
    return lambda value, outgoing: encode(lists.sent(value, outgoing.add_list), outgoing)


def decoder_for(annotation: Any) -> Callable[[Buffer, Incoming], Any]:
    """A function that decodes a payload into what ``annotation`` says.

    The function raises ``msgspec.ValidationError`` that names the place for data that are not so,
    :class:`StaleCapability`, and anything that msgspec raises for malformed bytes.  What was made of descriptors until
    then is in ``incoming.produced``.

    Raises:
        TypeError: no such data can be received.
    """
    lists = Lists(annotation)
    decode = msgspec.msgpack.Decoder(lists.stand_in, dec_hook=_decode_hook).decode

    def run(payload: Buffer, incoming: Incoming) -> Any:
        before = _current.incoming
        _current.incoming = incoming
        try:
            return decode(payload)
        finally:
            _current.incoming = before

    if not lists:
        return run
    return lambda payload, incoming: lists.received(run(payload, incoming), incoming.make_list)


def data_decoder_for(annotation: Any) -> Callable[[Buffer], Any]:
    """The same for what is data alone; the function raises anything that msgspec raises."""
    return msgspec.msgpack.Decoder(annotation).decode
