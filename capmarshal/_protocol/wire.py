"""The layout of records: bytes in, records out.  No socket, no descriptor.

Every record begins with the same head, whatever its version, so that any of them can be answered::

    0      version      1 byte
    1      kind         1 byte      KNOCK, CALL, REPLY, FAIL, BEGIN, PART, GO, GONE, REVOKED or SIGNAL
    2      entries      2 bytes     length of the table
    4      descriptors  2 bytes     how many travel with the record
    6      cpu          2 bytes     CALL and REPLY: 1 + the CPU that it was sent from; 0: not said, and in all others
    8      id           8 bytes     of the call; 0 in a KNOCK and a GONE

A CALL goes on with::

    16     time left    8 bytes     nanoseconds; all ones: no limit
    24     sent at      8 bytes     CLOCK_MONOTONIC when it was sent, nanoseconds; of no use without a limit
    32     method       2 bytes     length of its name
    34     badge        16 bytes

then the method's name in UTF-8: together with the badge, what is to be called.  CALL and REPLY then have the table,
``entries`` times::

    0      slot         2 bytes     which of the record's descriptors; 65534: none, see below
    2      badge        16 bytes    of a capability; all zero: the slot is a plain descriptor

and, of some plain descriptors, :mod:`further lines <capmarshal._protocol.further_lines>`; and then comes the payload
up to the end of the record, in MessagePack: of a CALL an array of the arguments that are given by position, or a map of
those that are given by name, with that array under the key ""; of a REPLY the result; of a FAIL a
:class:`capmarshal._protocol.faults.Fault`.  In the payload, an index into the table stands for the entry, of which its
further lines are a part.  Capabilities of one door share its slot; a plain descriptor has one of its own.  In a REPLY
the slot of a capability may be 65534: it is of this door, which the call came through, and has no descriptor.  A FAIL
has neither table nor descriptors.  Integers have the machine's byte order: both ends are on it.

A CALL, REPLY or FAIL that is too long for one record, or has too many descriptors for one, goes in parts: a BEGIN

    16     size         8 bytes     of the whole record
    24     descriptors  4 bytes     of the whole record

and then PARTs, whose bytes after the head, joined, are the record, and whose descriptors, in order, are its
descriptors.  To bound what is in flight, its sender waits for a GO after each PART with descriptors but the last
of all.  A GONE is the last word of a server that has read no more of a channel, where its end alone does not say so.
A REVOKED is the last word of one at a door, for all who hold it: the epitaph, which goes on with a reason in UTF-8.
A SIGNAL is all that goes through the door of a :class:`capmarshal.Signal`, whose badge is no secret: it says what that
door is for.

Methods bear the names of functions.  One name that is none, DESCRIBE, every object has whose entrypoint says what can
be called: it takes nothing, and its result is a :class:`capmarshal._typed.description.Description`.
"""

from __future__ import annotations

import struct
from sys import byteorder
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from capmarshal._kernel.native import DESCRIPTORS_MAX
from capmarshal._protocol import further_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from capmarshal._descriptors.array_layout import ArrayLayout
    from capmarshal._protocol.further_lines import Lent

VERSION = 3
KNOCK, CALL, REPLY, FAIL, BEGIN, PART, GO, GONE, REVOKED, SIGNAL = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

BADGE_SIZE = 16
# Bytes of a method's name, by the field in the head; and lines of a table, so that no descriptor has the slot below.
METHOD_MAX = (1 << 16) - 1
# What asks what can be called: no function is called so.
DESCRIBE = b"?"
ENTRIES_MAX = METHOD_MAX - 1
# A slot that no descriptor has, nor a further line: this door.
THIS_DOOR = (1 << 16) - 2
# In a table: no capability but a plain descriptor.  No object is ever given this badge.
NO_BADGE = bytes(BADGE_SIZE)
# Of every signal, and of no object.
SIGNAL_BADGE = b"capmarshalsignal"
# Of the door of an entrypoint itself, see :func:`combined`.
NO_SECRET = bytes(BADGE_SIZE)
NO_LIMIT = (1 << 64) - 1

_HEAD = struct.Struct("=BBHHHQ")
_CALL = struct.Struct("=BBHHHQQQH16s")
_BEGIN = struct.Struct("=BBHHHQQI")
_ENTRY = struct.Struct("=H16s")
# What is said of most entries besides slot and badge.
_NO_MORE = (None, None)


class Entry(NamedTuple):
    """One entry of a record's table."""

    slot: int
    badge: bytes
    array: ArrayLayout | None = None
    lease: Lent | None = None


class Call(NamedTuple):
    """A client asks for a method of the object that the badge selects."""

    id: int
    badge: bytes
    time_left: int
    sent_at: int
    method: bytes
    entries: list[Entry]
    descriptors: int
    payload: memoryview


class Reply(NamedTuple):
    """The method's result."""

    id: int
    entries: list[Entry]
    descriptors: int
    payload: memoryview


class Fail(NamedTuple):
    """The call ended in an error."""

    id: int
    payload: memoryview


class Knock(NamedTuple):
    """A client brings the far end of a new channel."""


class Begin(NamedTuple):
    """A record will follow in parts."""

    id: int
    size: int
    descriptors: int


class Part(NamedTuple):
    """The next bytes and descriptors of that record."""

    id: int
    descriptors: int
    payload: memoryview


class Go(NamedTuple):
    """The last part has been received: send the next."""

    id: int


class Gone(NamedTuple):
    """The server has given the channel up, and has read no more of it."""


# The lines of the commonest table: plain descriptors only, in order, as many as one record carries.
PLAIN = [Entry(slot, NO_BADGE) for slot in range(DESCRIPTORS_MAX)]
_PLAIN_TABLE = b"".join([_ENTRY.pack(slot, badge) for slot, badge, *_ in PLAIN])


def plain(count: int) -> list[Entry]:
    """The table of so many plain descriptors, in order."""
    return PLAIN[:count] if count <= DESCRIPTORS_MAX else [Entry(slot, NO_BADGE) for slot in range(count)]


def is_plain(entries: Sequence[Entry]) -> bool:
    """Whether a table is the first lines of :data:`PLAIN`.  Quick where it is: these are the same objects."""
    return entries == PLAIN[: len(entries)]


Record: TypeAlias = Call | Reply | Fail | Knock | Begin | Part | Go | Gone


class Malformed(Exception):  # never leaves the package: becomes a FAIL or a ProtocolError
    """A record that the layout does not allow.

    Attributes:
        id: of the call to answer, or None if not even that can be read.
    """

    def __init__(self, reason: str, id: int | None) -> None:  # noqa: A002 - the name of the field
        super().__init__(reason)
        self.id = id


KNOCK_RECORD = _HEAD.pack(VERSION, KNOCK, 0, 1, 0, 0)
GONE_RECORD = _HEAD.pack(VERSION, GONE, 0, 0, 0, 0)
EPITAPH_HEAD = _HEAD.pack(VERSION, REVOKED, 0, 0, 0, 0)
SIGNAL_RECORD = _HEAD.pack(VERSION, SIGNAL, 0, 0, 0, 0)
HEAD_SIZE = _HEAD.size
CALL_SIZE = _CALL.size


# What a call calls, as it stands in the record: the length of the method's name, the badge, and then the name.
_SIZE = 2
KEY_SIZE = _SIZE + BADGE_SIZE


def combined(badge: bytes, secret: bytes) -> bytes:
    """What a server keeps an object under: its badge, exclusive-or the secret of the door that it is called through.

    So a badge selects an object through its own door only: through another one it would have to be guessed anew, with
    that door's secret, which nobody is ever told.  C does the same, csrc/cm_read.c.
    """
    if secret is NO_SECRET:
        return badge
    return (int.from_bytes(badge, byteorder) ^ int.from_bytes(secret, byteorder)).to_bytes(BADGE_SIZE, byteorder)


def pack_size(method: bytes) -> bytes:
    """What a CALL says of the length of the method's name."""
    return len(method).to_bytes(_SIZE, byteorder)


def unpack_key(key: bytes) -> tuple[bytes, bytes]:
    """The badge and the method's name of the part of a CALL that says what is called."""
    return key[_SIZE:KEY_SIZE], key[KEY_SIZE:]


def is_of_parts(data: bytes | memoryview) -> bool:
    """Whether a record is one of those that long records travel by, as far as its first two bytes say."""
    return len(data) > 1 and data[0] == VERSION and data[1] in (BEGIN, PART, GO)


def is_knock(data: bytes) -> bool:
    """Whether a record is a knock, of whatever version: the calls that follow it are answered, and that says which."""
    return len(data) == HEAD_SIZE and data[1:] == KNOCK_RECORD[1:]


def pack_table(entries: Sequence[Entry]) -> tuple[bytes, int]:
    """The table of a CALL or REPLY, and how many lines it has."""
    if len(entries) == 1 and entries[0][2:] == _NO_MORE:
        return _ENTRY.pack(*entries[0][:2]), 1
    if is_plain(entries):
        table = _PLAIN_TABLE[: len(entries) * _ENTRY.size]
    else:
        lines = [_ENTRY.pack(*entry[:2]) + further_lines.pack(entry.array, entry.lease) for entry in entries]
        table = b"".join(lines)
    return table, len(table) // _ENTRY.size


def pack_call(
    id: int,  # noqa: A002 - the name of the field
    badge: bytes,
    time_left: int,
    sent_at: int,
    method: bytes,
    entries: Sequence[Entry],
    descriptors: int,
    payload: bytes,
) -> bytes:
    """A CALL record; see the layout above."""
    table, lines = pack_table(entries)
    head = _CALL.pack(VERSION, CALL, lines, descriptors, 0, id, time_left, sent_at, len(method), badge)
    return b"".join((head, method, table, payload))


def pack_reply(
    id: int,  # noqa: A002 - as above
    entries: list[Entry],
    descriptors: int,
    payload: bytes,
    cpu: int = 0,
) -> bytes:
    """A REPLY record."""
    table, lines = pack_table(entries)
    return _HEAD.pack(VERSION, REPLY, lines, descriptors, cpu, id) + table + payload


def pack_data_reply(id: int, payload: bytes, cpu: int) -> bytes:  # noqa: A002 - as above
    """A REPLY record with which nothing but data goes."""
    return _HEAD.pack(VERSION, REPLY, 0, 0, cpu, id) + payload


def pack_fail(id: int, payload: bytes) -> bytes:  # noqa: A002 - as above
    """A FAIL record."""
    return _HEAD.pack(VERSION, FAIL, 0, 0, 0, id) + payload


def pack_begin(id: int, size: int, descriptors: int) -> bytes:  # noqa: A002 - as above
    """A BEGIN record."""
    return _BEGIN.pack(VERSION, BEGIN, 0, 0, 0, id, size, descriptors)


def pack_part_head(id: int, descriptors: int) -> bytes:  # noqa: A002 - as above
    """What stands before the bytes of a PART."""
    return _HEAD.pack(VERSION, PART, 0, descriptors, 0, id)


def pack_go(id: int) -> bytes:  # noqa: A002 - as above
    """A GO record."""
    return _HEAD.pack(VERSION, GO, 0, 0, 0, id)


_NOT_AMONG = "a table refers to a descriptor that is not among the record's {}"


def read_table(
    data: bytes | memoryview,
    start: int,
    count: int,
    descriptors: int,
    id: int,  # noqa: A002 - as above
    *,
    of_reply: bool,
) -> list[Entry]:
    """The table of a CALL or REPLY, checked.

    Raises:
        Malformed: it is none.
    """
    end = start + count * _ENTRY.size
    if end > len(data):
        raise Malformed(f"a table of {count} lines in a record of {len(data)} bytes", id)
    if count <= descriptors and data[start:end] == _PLAIN_TABLE[: end - start]:
        return PLAIN[:count]
    if count == 1:
        slot, badge = _ENTRY.unpack_from(data, start)
        if slot >= descriptors and not (of_reply and slot == THIS_DOOR and badge != NO_BADGE):
            raise Malformed(_NOT_AMONG.format(descriptors), id)
        return [Entry(slot, badge)]
    entries = _read_entries(memoryview(data)[start:end], id)
    plain = [entry.slot for entry in entries if entry.badge == NO_BADGE]
    plain += [entry.lease.slot for entry in entries if entry.lease is not None]
    capabilities = {entry.slot for entry in entries if entry.badge != NO_BADGE}
    if of_reply:
        capabilities.discard(THIS_DOOR)
    if any(slot >= descriptors for slot in (*plain, *capabilities)):
        raise Malformed(_NOT_AMONG.format(descriptors), id)
    if len(set(plain)) < len(plain) or not capabilities.isdisjoint(plain):
        raise Malformed("a table gives one descriptor to two owners", id)
    return entries


def _read_entries(table: memoryview, id: int) -> list[Entry]:  # noqa: A002 - as above
    """The entries of a table, as far as its lines go together."""
    entries: list[Entry] = []
    at = 0
    while at < len(table):
        slot, badge = _ENTRY.unpack_from(table, at)
        at += _ENTRY.size
        try:
            more = further_lines.read(table, at) if badge == NO_BADGE else _NO_MORE
        except ValueError as error:
            raise Malformed(str(error), id) from None
        at += further_lines.count(*more) * _ENTRY.size
        entries.append(Entry(slot, badge, *more))
    return entries


# The lines of a table that C has checked, slot and badge of each: each is of a descriptor that came, and a plain one of
# one of its own.
lines_in: Callable[[bytes], Iterator[tuple[int, bytes]]] = _ENTRY.iter_unpack


def unpack(data: bytes | memoryview) -> Record:
    """The record in ``data``.  The payload is a view of it.

    Raises:
        Malformed: it is none.
    """
    if len(data) < _HEAD.size:
        raise Malformed(f"{len(data)} bytes are too few for a record", None)
    version, kind, count, descriptors, cpu, id = _HEAD.unpack_from(data)  # noqa: A001 - the name of the field
    if version != VERSION:
        raise Malformed(f"version {version} of the protocol; this is version {VERSION}", id)
    if kind == CALL:
        if len(data) < _CALL.size:
            raise Malformed(f"{len(data)} bytes are too few for a CALL", id)
        *_, time_left, sent_at, length, badge = _CALL.unpack_from(data)
        start = _CALL.size + length
        if start > len(data):
            raise Malformed(f"a method's name of {length} bytes in a record of {len(data)}", id)
        method = bytes(data[_CALL.size : start])
        entries = read_table(data, start, count, descriptors, id, of_reply=False) if count else []
        payload = memoryview(data)[start + count * _ENTRY.size :]
        return Call(id, badge, time_left, sent_at, method, entries, descriptors, payload)
    if kind == REPLY:
        entries = read_table(data, _HEAD.size, count, descriptors, id, of_reply=True) if count else []
        return Reply(id, entries, descriptors, memoryview(data)[_HEAD.size + count * _ENTRY.size :])
    if cpu:
        raise Malformed(f"a record of kind {kind} that says where it was sent from", id)
    if kind == FAIL and count == descriptors == 0:
        return Fail(id, memoryview(data)[_HEAD.size :])
    if kind == PART and count == 0 and (descriptors or len(data) > _HEAD.size):
        return Part(id, descriptors, memoryview(data)[_HEAD.size :])
    if kind == BEGIN and count == descriptors == 0 and len(data) == _BEGIN.size:
        *_, size, total = _BEGIN.unpack(data)
        return Begin(id, size, total)
    if kind == GO and count == descriptors == 0 and len(data) == _HEAD.size:
        return Go(id)
    if data == GONE_RECORD:
        return Gone()
    if data == KNOCK_RECORD:
        return Knock()
    raise Malformed(f"no record of kind {kind} looks like this", id)
