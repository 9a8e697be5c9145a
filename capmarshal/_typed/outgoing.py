"""The table of a record that is to be sent.  It borrows all that is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Capability, Proxy, badge_of, open_door_of
from capmarshal._capabilities.space import capability_of, space
from capmarshal._descriptors.dataspace import Dataspace, array_in
from capmarshal._descriptors.descriptor import numbers_of
from capmarshal._descriptors.shared_buffer import SharedBuffer, parts_of
from capmarshal._protocol import further_lines
from capmarshal._protocol.further_lines import Lent
from capmarshal._protocol.wire import ENTRIES_MAX, NO_BADGE, THIS_DOOR, Entry, plain
from capmarshal._typed.preparing import number_to_send, prepare
from capmarshal._typed.table import is_delegable, is_file, unsendable

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.door import Door
    from capmarshal._capabilities.homecoming import CameHome
    from capmarshal._descriptors.array_layout import ArrayLayout
    from capmarshal._descriptors.descriptor import Descriptor


class Outgoing:
    """What the payload of a record refers to that is being made.

    Args:
        serving: it is an answer's: the thread that makes it serves others.
        came_home: with the arguments of the call that is answered: that goes out as it came.
        called: the object whose method was called, where that was by a door that leads to it alone, and its badge of
            the door that the call came through: it goes out as that.  None: it is handed out, also if it is managed.
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
        "_called",
        "_came_home",
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
        came_home: CameHome | None = None,
        called: tuple[object, bytes | None] | None = None,
        hand_out: Callable[[Any], Capability] | None = None,
        hand_under: Callable[[Any], bytes] | None = None,
    ) -> None:
        self._serving = serving
        self._came_home, self._called = came_home, called
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
            way = self._came_home.way_of(thing) if self._came_home is not None else None
            if way is not None:
                self._add_capability(space.capability(*way))
            elif self._called is not None and thing is self._called[0] and (badge := self._called[1]) is not None:
                self.entries.append(Entry(THIS_DOOR, badge))
            elif self._hand_under is not None:
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
        managed = id(thing) in space.managed and (self._called is None or thing is not self._called[0])
        if self._hand_out is None or issubclass(type(thing), (Capability, Proxy)) or managed:
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


# Of a record that is data alone.  Nothing is ever added to it.
NOTHING = Outgoing()
