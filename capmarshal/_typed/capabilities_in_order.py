"""Capabilities in order: each an argument, beside data, and descriptors that stand in order, too.

As :mod:`capmarshal._typed.in_order`, with a table that says which badge goes with each door: no hook is called.  A
receiver that holds all the doors already makes nothing of them; else it is left to the table.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import (
    Capability,
    Delegable,
    Proxy,
    badge_of,
    capability_behind,
    door_of,
    open_door_of,
)
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.space import capability_of, space
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._protocol.wire import NO_BADGE, PLAIN, Entry, lines_in, pack_table
from capmarshal._typed.codec import encode_data
from capmarshal._typed.in_order import InOrder, number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._capabilities.door import Door, DoorSender
    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._typed.in_order import Lent
    from capmarshal._typed.parameters import Parameter
    from capmarshal._typed.table import Owned


def _capability(thing: Any) -> Capability | None:
    """What stands for a capability; None for what does not.

    Raises:
        TypeError: an object that nobody manages.
    """
    kind = type(thing)
    if kind is Capability:
        return thing  # type: ignore[no-any-return]  # it is one
    if issubclass(kind, Proxy):
        return capability_behind(thing)
    return capability_of(thing) if issubclass(kind, Delegable) else None


class CapabilitiesInOrder(InOrder):
    """The arguments of a method among which there are capabilities.

    Args:
        annotations: of the arguments.
        places: of each that is no data.
    """

    def __init__(self, annotations: Sequence[Any], places: Sequence[int]) -> None:
        super().__init__(
            annotations, [(place, False, annotations[place] is io.BufferedReader) for place in places], alone=False
        )
        # In the order of the table: the place, and what is due there if it is a capability.
        self._lines = [(place, kind if _is_capability(kind := annotations[place]) else None) for place in places]
        self._table_size = len(pack_table(PLAIN[: len(places)])[0])
        self._only = len(places) == len(annotations) and all(map(_is_capability, annotations))

    def lent(self, members: Sequence[Any]) -> Lent | None:
        """See :meth:`InOrder.lent`; None also where two are of one door, which they share."""
        if len(members) != self._count:
            return None
        if self._one:
            capability = _capability(members[0])
            if capability is None:
                return None
            door = open_door_of(capability)
            return self._payload, [door.number], [Entry(0, badge_of(capability))], (door,)  # type: ignore[return-value]  # there is one
        numbers: list[int] = []
        entries: list[Entry] = []
        doors: list[Door] = []
        indexed = list(members)
        for index, (place, kind) in enumerate(self._lines):
            thing, badge = members[place], NO_BADGE
            if kind is None:
                number = number_of(thing)
            else:
                capability = _capability(thing)
                if capability is None:
                    return None
                door = open_door_of(capability)
                if door in doors:
                    return None
                doors.append(door)
                number, badge = door.number, badge_of(capability)
            if number < 0:
                return None
            numbers.append(number)
            entries.append(Entry(index, badge))
            indexed[place] = index
        return self._payload or encode_data(indexed), numbers, entries, doors

    def received(
        self,
        payload: Buffer,
        inbox: Inbox,
        owned: Owned,
        table: bytes | None = None,
        sender: DoorSender | None = None,
    ) -> Sequence[Any] | None:
        """See :meth:`InOrder.received`; None also where one of several doors is not held yet."""
        struct, lines = inbox.struct, self._lines
        if table is None or len(table) != self._table_size or struct.count != len(lines):
            return None
        numbers = struct.descriptors
        made: list[Any] = []
        for index, (slot, badge) in enumerate(lines_in(table)):
            kind = lines[index][1]
            if slot != index or (badge == NO_BADGE) is not (kind is None):
                return None
            if kind is not None:
                thing = _made(kind, space.held(numbers[index], badge))
                if thing is None:
                    # A proxy cannot be made of every interface, and then the door must not be taken yet.
                    simple = self._one and kind is Capability and payload == self._payload
                    return _received_new(inbox, owned, badge, sender) if simple else None
                made.append(thing)
        # The very sockets that we hold, so that no close is the last, and none can block.
        if self._only and payload == self._payload:
            inbox.close()
            return made
        received = super().received(payload, inbox, owned)
        if received is None:
            return None
        members = list(received)
        made.reverse()
        for place, kind in lines:
            if kind is not None:
                descriptor = members[place]
                descriptor.close()
                owned.produced.remove(descriptor)
                members[place] = made.pop()
        return members


def _received_new(inbox: Inbox, owned: Owned, badge: bytes, sender: DoorSender | None) -> Sequence[Capability] | None:
    """The only argument, a capability of a door that is not held yet; None where it is held."""
    inbox.steal_each(owned.produced)
    capability = space.receive_new(owned.produced[0], badge, sender)
    if capability is None:
        return None
    owned.produced.clear()
    return [capability]


def _made(kind: Any, capability: Capability | None) -> object | None:
    """What is due, of a capability that is held; None where it is not that easy."""
    if capability is None or kind is Capability:
        return capability
    door = door_of(capability)
    # Its own entrypoint gives an object of this process itself.
    return None if door is None or home_of(door) is not None else capability.cast(kind)


def _is_capability(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, (Capability, Delegable))


def capabilities_in_order(
    annotations: Sequence[Any], data: Sequence[bool], parameters: Sequence[Parameter]
) -> CapabilitiesInOrder | None:
    """How a method's arguments travel among which there are capabilities; None where they may not, or there are none.

    Args:
        annotations: of the arguments.
        data: whether each is data alone.
        parameters: of the arguments.
    """
    places = [place for place in range(len(annotations)) if not data[place]]
    kinds = [annotations[place] for place in places]
    capabilities = sum(map(_is_capability, kinds))
    known = all(_is_capability(kind) or kind in (Descriptor, io.BufferedReader) for kind in kinds)
    if not capabilities or not known or any(p.kind is p.KEYWORD_ONLY for p in parameters):
        return None
    return CapabilitiesInOrder(annotations, places)
