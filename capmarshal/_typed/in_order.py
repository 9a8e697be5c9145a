"""Descriptors in order: each an argument, a result, or in a list that is one, and nowhere within other things.

So nearly all do that are handed over at all.  The n-th of them has the index n in the payload and is the n-th of the
record, whose table therefore says nothing: no hook is called, and no table made or read.  Whatever is not so at first
sight is left to :mod:`capmarshal._typed.codec` and :mod:`capmarshal._typed.table`, which do it, or say what is wrong.
"""

from __future__ import annotations

import errno
import typing
from io import BufferedReader, FileIO
from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._descriptors.closing import is_own_reader
from capmarshal._descriptors.descriptor import Descriptor, buffered_of, numbers_of
from capmarshal._kernel.native import DESCRIPTORS_MAX
from capmarshal._protocol.wire import ENTRIES_MAX
from capmarshal._typed.codec import data_decoder_for, encode_data
from capmarshal._typed.preparing import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._capabilities.door import Door, DoorSender
    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._protocol.wire import Entry
    from capmarshal._typed.parameters import Parameter
    from capmarshal._typed.table import Owned

# What is lent: the payload; the descriptors to send with it, borrowed; the table, or None where that is of plain ones
# in order; and the doors whose client ends are among them, which are held until they are sent.
Lent: TypeAlias = "tuple[bytes, list[int], list[Entry] | None, Sequence[Door]]"

# Kept, since to make 253 of them costs a microsecond.
_INDICES = list(range(DESCRIPTORS_MAX))


def _indices(first: int, stop: int) -> list[int]:
    return _INDICES[first:stop] if stop <= DESCRIPTORS_MAX else list(range(first, stop))


def number_of(thing: Any) -> int:
    """The descriptor of what is lent, borrowed, where that is at once to be had; else negative.

    Raises:
        Whatever is raised for what cannot be sent, or by a signal handler.
    """
    kind = type(thing)
    if kind is Descriptor:
        number: int = thing._number  # noqa: SLF001 - fileno() costs more
        return number
    if kind is BufferedReader and type(raw := thing.raw) is FileIO:
        try:
            # Whether the program has not read ahead: the open file stands where the program is in it.
            is_where_it_seems = thing.tell() == raw.tell()
        except OSError as error:
            # Another one is a signal handler's.
            if error.errno != errno.ESPIPE:
                raise
            is_where_it_seems = False
        if not is_where_it_seems:
            prepare(thing)
        return raw.fileno()
    return -1


def _is_list(annotation: Any) -> bool:
    """Whether it is exactly ``list[Descriptor]``."""
    return typing.get_origin(annotation) is list and typing.get_args(annotation) == (Descriptor,)


class InOrder:
    """The members of a value whose descriptors stand in order: the arguments of a method, or its one result.

    Args:
        annotations: of the members.
        places: of each member that is no data: its place, whether it is a list, and whether it is to be a file.
        alone: the annotation of a result, which stands for itself and is no member of an array.
    """

    def __init__(self, annotations: Sequence[Any], places: Sequence[tuple[int, bool, bool]], *, alone: bool) -> None:
        self._count = len(annotations)
        self._places = places
        self._readers = [place for place, _, is_reader in places if is_reader]
        self._alone = alone
        stand_ins = list(annotations)
        for place, listed, _ in places:
            stand_ins[place] = list[int] if listed else int
        stand_in = stand_ins[0] if alone else tuple[tuple(stand_ins)]  # type: ignore[misc]  # made at run time
        self._decode: Callable[[Buffer], Any] = data_decoder_for(stand_in)
        # What the payload is where there is nothing else: no need to decode it.
        only = len(places) == self._count and not any(listed for _, listed, _ in places)
        indices = _INDICES[: self._count]
        self._payload = encode_data(indices[0] if alone else indices) if only else None
        # What is handed over most: one, or one list, and nothing else.
        self._one = only and self._count == 1
        self._one_reader = self._one and bool(self._readers)
        self._list = self._count == 1 and places[0][1]
        self._payloads: dict[int, bytes] = {}

    def lent(self, members: Sequence[Any]) -> Lent | None:
        """What is sent for members; None where it is not that easy.

        Raises:
            Whatever is raised for what cannot be sent, or by a signal handler.
        """
        if len(members) != self._count:
            return None
        if self._one:
            number = number_of(members[0])
            return (self._payload, [number], None, ()) if number >= 0 else None  # type: ignore[return-value]  # there is one
        if self._list:
            return self._lent_list(members[0])
        numbers: list[int] = []
        indexed = list(members)
        for place, listed, _ in self._places:
            thing, first = members[place], len(numbers)
            if listed:
                more = numbers_of(thing) if type(thing) is list else None
                if more is None:
                    return None
                numbers += more
                indexed[place] = _indices(first, len(numbers))
            else:
                number = number_of(thing)
                if number < 0:
                    return None
                numbers.append(number)
                indexed[place] = first
        if len(numbers) > ENTRIES_MAX:
            return None
        return self._payload or encode_data(indexed), numbers, None, ()

    def _payload_for(self, count: int) -> bytes:
        """The payload that is one list of so many, which is kept for the next time."""
        indices = _indices(0, count)
        payload = encode_data(indices if self._alone else (indices,))
        # Of no more than one record carries.
        if count <= DESCRIPTORS_MAX:
            self._payloads[count] = payload
        return payload

    def _lent_list(self, things: Any) -> Lent | None:
        numbers = numbers_of(things) if type(things) is list else None
        if numbers is None or len(numbers) > ENTRIES_MAX:
            return None
        count = len(numbers)
        return self._payloads.get(count) or self._payload_for(count), numbers, None, ()

    def received(
        self,
        payload: Buffer,
        inbox: Inbox,
        owned: Owned,
        table: bytes | None = None,
        sender: DoorSender | None = None,  # noqa: ARG002 - a descriptor is no door
    ) -> Sequence[Any] | None:
        """The members for a payload and the descriptors in an inbox, which ``owned`` owns from here on.

        None where it is not that easy: they are its plain :class:`Descriptor` then, or still in the inbox.

        Args:
            payload: that came.
            inbox: what came with it.
            owned: empty.
            table: of that; None: it is of plain descriptors, in order.
            sender: who sent it, where the doors that it brings are to be counted.

        Raises:
            Whatever msgspec raises for a payload that is no good.
        """
        if table is not None:
            return None
        descriptors = owned.produced
        if self._one_reader and payload == self._payload:
            struct = inbox.struct
            if struct.count == 1 and is_own_reader(struct.descriptors[0]):
                file = inbox.steal_reader()
                descriptors.append(file)
                owned.raws = {id(file): file.raw}  # type: ignore[dict-item]  # typeshed has a protocol there
                return descriptors
        inbox.steal_each(descriptors)
        if payload == self._payload and len(descriptors) == self._count:
            if not self._readers:
                return descriptors
            members: list[Any] = descriptors[:]
        elif self._list and payload == (self._payloads.get(count := len(descriptors)) or self._payload_for(count)):
            return (descriptors[:],)
        else:
            decoded = self._decode(payload)
            members = [decoded] if self._alone else list(decoded)
            at = 0
            for place, listed, _ in self._places:
                index = members[place]
                count = len(index) if listed else 1
                if index != (_INDICES[at : at + count] if listed else at) or at + count > len(descriptors):
                    return None
                members[place] = descriptors[at : at + count] if listed else descriptors[at]
                at += count
            if at != len(descriptors):
                return None
        # All of them first: None is no answer once a descriptor has become something else.
        for place in self._readers:
            if not is_own_reader(members[place].fileno()):
                return None
        for place in self._readers:
            descriptor = members[place]
            members[place] = file = buffered_of(descriptor, "r", BufferedReader)
            descriptors[descriptors.index(descriptor)] = file
            owned.note_raw(file)
        return members

    def returned(self, result: Any) -> tuple[bytes, list[Descriptor]] | None:
        """The payload for a result, and the descriptors to send with it, which the call owns; None as in :meth:`lent`.

        Those that are to be closed by more than their number are not that easy.
        """
        if self._one:
            is_open = type(result) is Descriptor and result._number >= 0  # noqa: SLF001 - as in _number_of()
            return (self._payload, [result]) if is_open else None  # type: ignore[return-value]  # there is one
        lent = self._lent_list(result)
        if lent is None or len(set(lent[1])) != len(result):
            return None
        return lent[0], result


def in_order(annotations: Sequence[Any], data: Sequence[bool], parameters: Sequence[Parameter] = ()) -> InOrder | None:
    """How the members of a value travel whose descriptors stand in order; None where they may not.

    Args:
        annotations: of the members: a method's arguments, or its one result.
        data: whether each is data alone.
        parameters: of the arguments; none for a result.
    """
    places = [
        (place, _is_list(annotation), annotation is BufferedReader)
        for place, annotation in enumerate(annotations)
        if not data[place]
    ]
    known = all(listed or annotations[place] in (Descriptor, BufferedReader) for place, listed, _ in places)
    if not places or not known or any(p.kind is p.KEYWORD_ONLY for p in parameters):
        return None
    return InOrder(annotations, places, alone=not parameters)
