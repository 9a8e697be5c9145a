"""Sockets that are closed in the middle of a fork: open in the child, where memory says that they are closed.

fork(2) copies the table before the memory, and other threads go on closing in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.descriptor_list import DescriptorList, identities_in
from capmarshal._descriptors.process import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable


class BeforeFork:
    """The lists that were being closed when a fork began, and the sockets in each, by number and identity."""

    def __init__(self) -> None:
        self._noted: list[tuple[DescriptorList, list[tuple[int, int]]]] = []

    def __bool__(self) -> bool:
        return bool(self._noted)

    def note(self, being_closed: Callable[[], list[DescriptorList]]) -> None:
        """Notes what may be closed while the process is being forked; it costs those that close nothing.

        Args:
            being_closed: the lists that threads close at the moment, or are about to; asked more than once.
        """
        self._noted.clear()
        noted: dict[int, DescriptorList] = {}
        # Other threads may hand over more while the kernel is asked; while os.fork() runs, none does.
        while new := [each for each in being_closed() if id(each) not in noted]:
            noted.update((id(each), each) for each in new)
            self._noted += zip(new, identities_in(new), strict=True)

    def forget(self) -> None:
        """In the parent, when it has forked."""
        self._noted.clear()

    def closed_meanwhile(self) -> DescriptorList:
        """In a child: the sockets that memory says are closed, and the table does not."""
        found: set[int] = set()
        for each, sockets in self._noted:
            known = set(each.numbers())
            # Closed by the parent before the table was copied, the number may be anybody's.
            found.update(
                number for number, identity in sockets if number not in known and identity_of(number) == identity
            )
        return DescriptorList.of([Descriptor(number) for number in found])
