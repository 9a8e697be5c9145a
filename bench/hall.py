"""The server for many: as many objects and channels as are wanted; what they cost can be asked of it."""

from __future__ import annotations

import capmarshal as cm
from bench import adder, serving, usage


class Hall(adder.Adder):
    """What is called."""

    @cm.method
    def manage(self, count: int) -> None:
        """Manages so many objects more."""

    @cm.method
    def hand_out(self, first: int, count: int) -> list[cm.Capability]:
        """Capabilities of some of these objects."""

    @cm.method
    def hold(self, things: list[cm.Capability]) -> int:
        """Holds these too; how many different ones it holds then."""

    @cm.method
    def open_files(self) -> int:
        """How many descriptors the server's process has open."""

    @cm.method
    def fill_up(self) -> None:
        """Has what is made from here on need memory of its own."""

    @cm.method
    def resident(self) -> int:
        """Bytes that the server's process has to itself."""


class HallServer(serving.StationServer, Hall):
    """Manages objects at an entrypoint."""

    def __init__(self, entrypoint: cm.Entrypoint) -> None:
        self._entrypoint = entrypoint
        self._objects: list[adder.AdderServer] = []
        self._held: set[cm.Capability] = set()
        self._full: list[bytes] = []

    def add(self, a: int, b: int) -> int:
        """The sum."""
        return a + b

    def manage(self, count: int) -> None:
        """Manages so many objects more."""
        for _ in range(count):
            made = adder.AdderServer()
            self._entrypoint.manage(made)
            self._objects.append(made)

    def hand_out(self, first: int, count: int) -> list[cm.Capability]:
        """Capabilities of some of these objects."""
        return [cm.capability(made) for made in self._objects[first : first + count]]

    def hold(self, things: list[cm.Capability]) -> int:
        """Holds these too; how many different ones it holds then."""
        self._held.update(things)
        return len(self._held)

    def open_files(self) -> int:
        """How many descriptors the server's process has open."""
        return usage.open_files()

    def fill_up(self) -> None:
        """Has what is made from here on need memory of its own."""
        self._full = usage.fill_up()

    def resident(self) -> int:
        """Bytes that the server's process has to itself."""
        return usage.resident()


if __name__ == "__main__":
    place = cm.Entrypoint("hall")
    serving.serve(place, HallServer(place))
