"""A call whose method runs beside others, as its server knows it: there is no answer when it begins."""

from __future__ import annotations

import abc


class Handler(abc.ABC):
    """One such call.

    Attributes:
        id: of the call.
        size: bytes that came with it.
        descriptors: likewise.
        place: 1, or 0: it has given its place back, and only waits.
        kept: whatever its event loop wants to be kept while it runs.
    """

    __slots__ = ("__weakref__", "descriptors", "id", "kept", "place", "size")

    def __init__(self, call_id: int, size: int, descriptors: int) -> None:
        self.id = call_id
        self.size = size
        self.descriptors = descriptors
        self.place = 1
        self.kept: object = None

    @abc.abstractmethod
    def start(self) -> None:
        """Has its method run."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """Tells its method to end: nobody wants its answer any more.  Does nothing the second time."""

    @abc.abstractmethod
    def insist(self) -> None:
        """Tells its method to end, also where it was told before: the service ends, and nobody is answered."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes all that came with it, where it is not started."""

    @property
    @abc.abstractmethod
    def where(self) -> str:
        """Interface and method, for people."""
