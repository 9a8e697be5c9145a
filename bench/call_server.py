"""The server of bench/call.py: started by it, holds nothing but the capability to hand its object in.

It serves until its standard input ends, so it goes when the benchmark does, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import sys

import capmarshal as cm


class Adder(cm.Interface):
    """What is called."""

    @cm.method
    def add(self, a: int, b: int) -> int:
        """The sum."""

    @cm.method
    def run_on(self, cpu: int) -> None:
        """Has the calls served on one core from here on."""


class Host(cm.Interface):
    """What the benchmark gives its server."""

    @cm.method
    def offer(self, adder: Adder) -> None:
        """Takes what is to be called."""


class AdderServer(Adder):
    """Adds."""

    def add(self, a: int, b: int) -> int:
        """The sum."""
        return a + b

    def run_on(self, cpu: int) -> None:
        """Has the calls served on one core: an affinity is a thread's own, and this is the thread that serves."""
        os.sched_setaffinity(0, {cpu})


def main() -> None:
    """Serves."""
    with cm.Entrypoint("adder") as entrypoint:
        adder = AdderServer()
        entrypoint.manage(adder)
        cm.parent().cast(Host).offer(adder)
        # Ctrl-C reaches the whole process group: the benchmark's own words about it are enough.
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
