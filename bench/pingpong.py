"""The C program that plays records back and forth, and how large they are in capmarshal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bench import c_programs
from bench.adder import Adder
from capmarshal._protocol import wire as _wire
from capmarshal._typed.method import methods_of
from capmarshal._typed.table import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.places import Cores

KEPT, POLLING, FRESH = "C, kept channel", "C, kept channel, polling", "C, reply socketpair per call"


def record_sizes() -> tuple[int, int]:
    """How many bytes capmarshal's CALL and REPLY for ``add(1, 2)`` have, for C to carry as many."""
    add = methods_of(Adder)[b"add"]
    arguments = add.encode_arguments((1, 2), Outgoing())
    call = _wire.pack_call(1, bytes(_wire.BADGE_SIZE), _wire.NO_LIMIT, 0, add.wire_name, [], 0, arguments)
    reply = _wire.pack_reply(1, [], 0, add.encode_result(3, Outgoing()))
    return len(call), len(reply)


class Pingpong:
    """The program, compiled."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self.sizes = record_sizes()

    def run(self, mode: str, calls: int, cores: Cores, descriptors: int = 0) -> float:
        """Seconds for one round trip; the program warms up by itself."""
        arguments = (calls, cores.client, cores.server, *self.sizes, descriptors)
        return float(c_programs.run(self._program, mode, *map(str, arguments))) / 1e9


@contextlib.contextmanager
def pingpong() -> Iterator[Pingpong]:
    """It, as long as the block runs."""
    with c_programs.compiled("pingpong") as program:
        yield Pingpong(program)
