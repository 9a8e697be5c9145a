"""The server that takes capabilities, and keeps them until it is told to drop them."""

from __future__ import annotations

import capmarshal as cm
from bench import serving


class Keeper(serving.Station):
    """What is called."""

    @cm.method
    def take(self, thing: cm.Capability) -> int:
        """Keeps it; how many different ones it has then."""

    @cm.method
    def drop(self) -> None:
        """Drops them all."""


class KeeperServer(serving.StationServer, Keeper):
    """Keeps each once."""

    def __init__(self) -> None:
        self._kept: set[cm.Capability] = set()

    def take(self, thing: cm.Capability) -> int:
        """Keeps it; how many different ones it has then."""
        self._kept.add(thing)
        return len(self._kept)

    def drop(self) -> None:
        """Drops them all."""
        self._kept.clear()


if __name__ == "__main__":
    serving.serve(cm.Entrypoint("keeper"), KeeperServer())
