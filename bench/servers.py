"""The server of the benchmarks: every kind of work that a client asks for."""

from __future__ import annotations

import io  # noqa: TC003 - capmarshal reads the annotations

import capmarshal as cm
from bench import by_hand, serving


class Works(serving.Station):
    """What is called."""

    @cm.method
    def add(self, a: int, b: int) -> int:
        """The sum."""

    @cm.method
    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]:
        """The same files."""

    @cm.method
    def describe(self, file: io.BufferedReader) -> str:
        """64 characters, whatever the file."""

    @cm.method
    def take(self, thing: cm.Capability) -> int:
        """Keeps it; how many different ones it has then."""


class WorksServer(serving.StationServer, Works):
    """Does that; the call closes the files."""

    def __init__(self) -> None:
        self._kept: set[cm.Capability] = set()

    def add(self, a: int, b: int) -> int:
        """The sum."""
        return a + b

    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]:
        """The same files."""
        return files

    def describe(self, file: io.BufferedReader) -> str:  # noqa: ARG002 - that it arrived as such is the work
        """64 characters, whatever the file."""
        return by_hand.TEXT

    def take(self, thing: cm.Capability) -> int:
        """Keeps it; how many different ones it has then."""
        self._kept.add(thing)
        return len(self._kept)


if __name__ == "__main__":
    serving.serve(cm.Entrypoint("works"), WorksServer())
