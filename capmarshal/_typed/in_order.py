"""Descriptors and capabilities in order: each an argument, a result, or in a list that is one.

So nearly all stand that are handed over at all.  The n-th of them has the index n in the payload and is the n-th of the
record, whose table therefore says nothing but which badge goes with a door: no hook is called.  Whatever is not so at
first sight is left to :mod:`capmarshal._typed.codec` and :mod:`capmarshal._typed.table`, which do it, or say what is
wrong: what stands within other things, two capabilities of one door, or two of doors that are new here.
"""

from __future__ import annotations

import socket
import typing
from io import BufferedReader
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from capmarshal._capabilities.capability import (
    Capability,
    Delegable,
    can_be_cast,
    door_of,
    suits,
)
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.space import cookie_of, space
from capmarshal._descriptors.closing import is_own_reader
from capmarshal._descriptors.descriptor import Descriptor, buffered_of, numbers_in
from capmarshal._descriptors.mounts import mounts
from capmarshal._kernel.native import DESCRIPTORS_MAX, lib
from capmarshal._protocol.wire import ENTRIES_MAX, NO_BADGE, lines_in
from capmarshal._typed.codec import LONG, data_decoder_for, encode_data
from capmarshal._typed.sendable import optional_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._capabilities.door import DoorSender
    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._typed.incoming import Owned

# What a call returns: plain descriptors, no two of one number, and their numbers.
Results: TypeAlias = "tuple[list[Descriptor], list[int]]"

# Looked up once: an attribute of cffi's costs as much as the rest.
_cm_reads_own_file = lib.cm_reads_own_file

# Kept, since to make 253 of them costs a microsecond.
_INDICES = list(range(DESCRIPTORS_MAX))


def indices(first: int, stop: int) -> list[int]:
    """Those from the first to before the last."""
    return _INDICES[first:stop] if stop <= DESCRIPTORS_MAX else list(range(first, stop))


def _kind_of(annotation: Any) -> tuple[Any, bool] | None:
    """What is due where this is the annotation, and whether None will do; None where it may not stand in order."""
    if typing.get_origin(annotation) is list and typing.get_args(annotation) == (Descriptor,):
        return list, False
    kind, optional = optional_in(annotation)
    known = kind is Descriptor or kind in _FITS or _is_capability(kind)
    return (kind, optional) if known else None


def _is_capability(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, (Capability, Delegable))


# What is made of a descriptor, and how to see that its number is one of which that can be made at once.
_FITS: Mapping[Any, Callable[[int], bool]] = {
    BufferedReader: is_own_reader,
    socket.socket: lambda number: lib.cm_socket_option(number, socket.SO_TYPE) >= 0,
}


class _Part(NamedTuple):
    """A member that is to be made: where it is, what is due there, what came for it, and the badge with that."""

    place: int
    kind: Any
    came: Descriptor
    badge: bytes


class InOrder:
    """The members of a value that stand in order: the arguments of a method, or its one result.

    Args:
        annotations: of the members.
        places: of each member that is no data: its place, what is due there, and whether None will do.
        alone: the annotation of a result, which stands for itself and is no member of an array.
    """

    def __init__(self, annotations: Sequence[Any], places: Sequence[tuple[int, Any, bool]], *, alone: bool) -> None:
        self._count = len(annotations)
        self._places = places
        self._alone = alone
        kinds = [kind for _, kind, _ in places]
        self._capabilities = {place: kind for place, kind, _ in places if _is_capability(kind)}
        stand_ins = list(annotations)
        for place, kind, optional in places:
            stand_ins[place] = list[int] if kind is list else int | None if optional else int
        stand_in = stand_ins[0] if alone else tuple[tuple(stand_ins)]  # type: ignore[misc]  # made at run time
        self._decode: Callable[[Buffer], Any] = data_decoder_for(stand_in)
        # What the payload is where there is nothing else: no need to decode it.
        only = len(places) == self._count and list not in kinds and not any(optional for _, _, optional in places)
        self._payload = encode_data(0 if alone else indices(0, self._count)) if only else None
        # What is handed over most: one, or one list, and nothing else.
        self._one = only and self._count == 1
        self._one_reader = self._one and kinds == [BufferedReader]
        self._one_capability = self._one and bool(self._capabilities)
        self._list = self._count == 1 and kinds == [list]
        self._are_plain = {*kinds} <= {Descriptor, list}
        self._payloads: dict[int, bytes] = {}

    def _payload_for(self, count: int) -> bytes:
        """The payload that is one list of so many, which is kept for the next time."""
        members = indices(0, count)
        payload = encode_data(members if self._alone else (members,))
        # Of no more than one record carries.
        if count <= DESCRIPTORS_MAX:
            self._payloads[count] = payload
        return payload

    def _list_of(self, things: Any) -> tuple[bytes, list[int]] | None:
        """The payload for one list of descriptors, and these, -1 for what is closed; None where it is not that easy."""
        numbers = numbers_in(things) if type(things) is list else None
        if numbers is None or len(numbers) > ENTRIES_MAX:
            return None
        count = len(numbers)
        return self._payloads.get(count) or self._payload_for(count), numbers

    def received(
        self,
        payload: bytes | memoryview,
        inbox: Inbox,
        owned: Owned,
        table: bytes | None = None,
        sender: DoorSender | None = None,
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
        descriptors = owned.produced
        badges = None
        if table is not None:
            lines = [*lines_in(table)]
            count = inbox.count[0]
            if self._one_capability and count == len(lines) == 1 and payload == self._payload:
                ((slot, badge),) = lines
                return self._received_one(inbox, descriptors, badge, sender) if slot == 0 else None
            if [slot for slot, _ in lines] != indices(0, count):
                return None
            badges = [badge for _, badge in lines]
        elif (
            self._one_reader
            and payload == self._payload
            and inbox.count[0] == 1
            # The other asks it, too, and costs the call.
            and (_cm_reads_own_file(number := inbox.numbers[0], mounts.struct) > 0 or is_own_reader(number))
        ):
            file = inbox.steal_reader(number)
            descriptors.append(file)
            owned.raws = {id(file): file.raw}  # type: ignore[dict-item]  # typeshed has a protocol there
            return descriptors
        inbox.steal_each(descriptors)
        if badges is None and self._are_plain:
            if payload == self._payload and len(descriptors) == self._count:
                return descriptors
            if self._list and payload == (self._payloads.get(count := len(descriptors)) or self._payload_for(count)):
                return (descriptors[:],)
        if len(payload) > LONG:
            # It would be decoded twice where it is not in order, or no good.
            return None
        decoded = self._decode(payload)
        members = [decoded] if self._alone else list(decoded)
        parts = self._placed(members, descriptors, badges or [NO_BADGE] * len(descriptors))
        return members if parts is not None and self._made(parts, members, owned, sender) else None

    def _received_one(
        self, inbox: Inbox, descriptors: list[Any], badge: bytes, sender: DoorSender | None
    ) -> Sequence[Any] | None:
        """As :meth:`received`, of the one capability."""
        kind, number = self._capabilities[0], inbox.numbers[0]
        if not suits(kind, badge):
            return None
        cookie = cookie_of(number)
        held = _held(kind, number, cookie, badge)
        if held is not None:
            # The very socket that we hold, so that no close is the last, and none can block.
            inbox.close()
            return (held,)
        inbox.steal_each(descriptors)
        made = _new(kind, descriptors[0], cookie, badge, sender) if can_be_cast(kind) else None
        if made is None:
            return None
        descriptors.clear()
        return (made,)

    def _placed(self, members: list[Any], descriptors: list[Any], badges: Sequence[bytes]) -> list[_Part] | None:
        """Puts what came in the place of each index, and says of what more is due; None where that is not in order."""
        parts, at = [], 0
        for place, kind, _ in self._places:
            index = members[place]
            if index is None:
                continue
            stop = at + (len(index) if kind is list else 1)
            if index != (indices(at, stop) if kind is list else at) or stop > len(descriptors):
                return None
            if badges[at:stop].count(NO_BADGE) != (0 if place in self._capabilities else stop - at):
                return None
            members[place] = descriptors[at:stop] if kind is list else descriptors[at]
            if kind is not list and kind is not Descriptor:
                parts.append(_Part(place, kind, descriptors[at], badges[at]))
            at = stop
        return parts if at == len(descriptors) else None

    def _made(self, parts: list[_Part], members: list[Any], owned: Owned, sender: DoorSender | None) -> bool:
        """Puts what is due in the places of parts; false where that is not so easy, and all is as it was."""
        held: dict[int, Any] = {}
        new: _Part | None = None
        cookie_of_new = 0
        # All of them first: there is no way back once a descriptor has become something else.
        for part in parts:
            place, kind, came, badge = part
            if kind in _FITS:
                if not _FITS[kind](came.fileno()):
                    return False
                continue
            if not suits(kind, badge):
                return False
            number = came.fileno()
            cookie = cookie_of(number)
            held[place] = _held(kind, number, cookie, badge)
            if held[place] is None:
                if new is not None or not can_be_cast(kind):
                    return False
                new, cookie_of_new = part, cookie
        if new is not None:
            made = held[new.place] = _new(new.kind, new.came, cookie_of_new, new.badge, sender)
            if made is None:
                return False
        for place, kind, came, _ in parts:
            if kind in _FITS:
                members[place] = file = _file_of(kind, came)
                owned.produced[owned.produced.index(came)] = file
                if kind is BufferedReader:
                    owned.note_raw(file)
            else:
                members[place] = held[place]
                # The very socket that we hold, or nothing any more.
                came.close()
                owned.produced.remove(came)
        return True

    def returned(self, result: Any) -> tuple[bytes, Results] | None:
        """The payload for a result, and the descriptors to send with it, which the call owns; None if not that easy.

        Those that are to be closed by more than their number are not that easy.
        """
        if self._one:
            is_open = type(result) is Descriptor and result._number >= 0  # noqa: SLF001 - fileno() costs more
            return (self._payload, ([result], [result._number])) if is_open else None  # type: ignore[return-value]  # noqa: SLF001 - there is one
        listed = self._list_of(result)
        if listed is None:
            return None
        payload, numbers = listed
        distinct = {*numbers}
        return None if -1 in distinct or len(distinct) < len(numbers) else (payload, (result, numbers))


def _held(kind: Any, number: int, cookie: int, badge: bytes) -> object | None:
    """What is due, of a capability whose door is held; None where it is not, or not that easy."""
    capability = space.held(number, cookie, badge)
    if capability is None or kind is Capability:
        return capability
    door = door_of(capability)
    # Its own entrypoint gives an object of this process itself.
    return None if door is None or home_of(door) is not None else capability.cast(kind)


def _new(kind: Any, descriptor: Descriptor, cookie: int, badge: bytes, sender: DoorSender | None) -> object | None:
    """The same of one whose door is not held, which takes the descriptor then; None where it is held.

    Raises:
        ArgumentError, TableFull: as :meth:`Space.receive_new`.
    """
    capability = space.receive_new(descriptor, cookie, badge, sender)
    return capability if capability is None or kind is Capability else capability.cast(kind)


def _file_of(kind: Any, descriptor: Descriptor) -> Any:
    return descriptor.socket() if kind is socket.socket else buffered_of(descriptor, "r", BufferedReader)


def places_in(annotations: Sequence[Any], data: Sequence[bool]) -> list[tuple[int, Any, bool]]:
    """Where what is no data stands in order, and what is due there, as :class:`InOrder` has it; empty where it may not.

    Args:
        annotations: of the members of a value.
        data: whether each is data alone.
    """
    kinds = [(place, _kind_of(annotation)) for place, annotation in enumerate(annotations) if not data[place]]
    places = [(place, *kind) for place, kind in kinds if kind is not None]
    return places if len(places) == len(kinds) else []


def result_in_order(annotation: Any, *, is_data: bool) -> InOrder | None:
    """How a result travels that stands in order; None where it may not."""
    places = places_in([annotation], [is_data])
    # What a method returns is the call's, and a door is nobody's.
    if not places or any(optional or _is_capability(kind) for _, kind, optional in places):
        return None
    return InOrder([annotation], places, alone=True)
