"""What a call is sent with: in the first way that will do, of data, of what stands in order, and by a table."""

from __future__ import annotations

import errno
import socket
from io import BufferedReader, FileIO
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import capability_of
from capmarshal._descriptors.descriptor import Descriptor, numbers_of
from capmarshal._protocol.wire import ENTRIES_MAX, Entry, plain
from capmarshal._typed.codec import BAD_PAYLOAD, encode_data
from capmarshal._typed.in_order import InOrder, indices, places_in
from capmarshal._typed.preparing import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._typed.arguments import Arguments, Given, Lent
    from capmarshal._typed.declaration import Declaration
    from capmarshal._typed.long import Encoder


def _number_at_once(thing: Any) -> int:
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
    return int(thing.fileno()) if kind is socket.socket else -1


class ArgumentsInOrder(InOrder):
    """Arguments that stand in order.

    Args:
        annotations: of them.
        places: as of :class:`InOrder`.
        in_a_table: lends what does not stand so after all, or says what is wrong with it.
    """

    def __init__(
        self,
        annotations: Sequence[Any],
        places: Sequence[tuple[int, Any, bool]],
        in_a_table: Callable[[Given], Lent],
    ) -> None:
        super().__init__(annotations, places, alone=False)
        self._in_a_table = in_a_table

    def lend(self, given: Given) -> Lent:
        """What a call is sent with.

        Raises:
            ArgumentError, Closed: it cannot be sent; names the parameter.
        """
        try:
            if type(given) is tuple and len(given) == self._count:
                if self._one_capability:
                    capability = capability_of(given[0])
                    door = open_door_of(capability)
                    return self._payload, [door.number], [Entry(0, badge_of(capability))], (door,)  # type: ignore[return-value]  # there is one
                if self._one:
                    number = _number_at_once(given[0])
                    if number >= 0:
                        return self._payload, [number], None, ()  # type: ignore[return-value]  # there is one
                elif self._list:
                    listed = self._list_of(given[0])
                    if listed is not None and -1 not in listed[1]:
                        payload, numbers = listed
                        return payload, numbers, None, ()
                elif (lent := self._lend_each(given)) is not None:
                    return lent
        except Exception:
            # Says which argument it is; where it is none, a signal handler has raised it.
            self._in_a_table(given)
            raise
        return self._in_a_table(given)

    def _lend_each(self, given: Sequence[Any]) -> Lent | None:
        """The same where there are several; None where it is not that easy."""
        numbers: list[int] = []
        doors: list[Door] = []
        lines: list[Entry] = []
        indexed = list(given)
        for place, kind, optional in self._places:
            thing, at = given[place], len(numbers)
            if thing is None and optional:
                continue
            if kind is list:
                more = numbers_of(thing) if type(thing) is list else None
                if more is None:
                    return None
                numbers += more
                indexed[place] = indices(at, len(numbers))
                continue
            if place in self._capabilities:
                capability = capability_of(thing)
                door = open_door_of(capability)
                if door in doors:
                    return None
                doors.append(door)
                lines.append(Entry(at, badge_of(capability)))
                number = door.number
            else:
                number = _number_at_once(thing)
            if number < 0:
                return None
            numbers.append(number)
            indexed[place] = at
        if len(numbers) > ENTRIES_MAX:
            return None
        entries = plain(len(numbers)) if lines else None
        for line in lines:
            entries[line.slot] = line  # type: ignore[index]  # there are lines
        return self._payload or encode_data(indexed), numbers, entries, doors


def arguments_in_order(declared: Declaration, arguments: Arguments) -> ArgumentsInOrder | None:
    """How a method's arguments travel that stand in order; None where they may not."""
    places = places_in(declared.annotations, declared.data)
    if not places or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in declared.parameters):
        return None
    return ArgumentsInOrder(declared.annotations, places, arguments.in_a_table)


def data_lender(encode: Encoder, arguments: Arguments) -> Callable[[Given], Lent]:
    """What says what a call is sent with whose arguments are data: raises what :meth:`ArgumentsInOrder.lend` does."""

    def lend(given: Given) -> Lent:
        try:
            return encode(given), (), (), ()
        except BAD_PAYLOAD:  # said below, with the name of the parameter
            pass
        return arguments.in_a_table(given)

    return lend
