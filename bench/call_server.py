"""The server of bench/call.py: started by it, holds nothing but the capability to hand its object in."""

from __future__ import annotations

import measuring

import capmarshal as cm


class Adder(cm.Interface):
    """What is called."""

    @cm.method
    def add(self, a: int, b: int) -> int:
        """The sum."""

    @cm.method
    def run_on(self, cpu: int) -> None:
        """Has the calls served on one core from here on."""


class AdderServer(Adder):
    """Adds."""

    def add(self, a: int, b: int) -> int:
        """The sum."""
        return a + b

    def run_on(self, cpu: int) -> None:
        """Has the calls served on one core from here on."""
        measuring.run_on(cpu)


if __name__ == "__main__":
    measuring.serve(cm.Entrypoint("adder"), AdderServer())
