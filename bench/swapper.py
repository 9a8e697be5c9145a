"""The server that gives back what it is given: calls with descriptors both ways."""

from __future__ import annotations

import capmarshal as cm
from bench import serving


class Swapper(serving.Station):
    """What is called."""

    @cm.method
    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]:
        """The same files."""


class SwapperServer(serving.StationServer, Swapper):
    """Gives them back; the call closes them."""

    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]:
        """The same files."""
        return files


if __name__ == "__main__":
    serving.serve(cm.Entrypoint("swapper"), SwapperServer())
