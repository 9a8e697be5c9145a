"""The program in C: the limit to measure against."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.places import Cores
from bench.server import Works
from capmarshal._protocol import wire
from capmarshal._typed.method import methods_of
from capmarshal._typed.table import Outgoing

# The two numbers at the beginning of each record, and of each answer.
_HEAD = 16


def record_sizes() -> tuple[int, int]:
    """How many bytes capmarshal's CALL and REPLY for ``add(1, 2)`` have, for C to carry as many."""
    add = methods_of(Works)[b"add"]
    arguments = add.encode_arguments((1, 2), Outgoing())
    call = wire.pack_call(1, bytes(wire.BADGE_SIZE), wire.NO_LIMIT, 0, add.wire_name, [], 0, arguments)
    reply = wire.pack_reply(1, [], 0, add.encode_result(3, Outgoing()))
    return len(call), len(reply)


class InC:
    """The program, compiled."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._call, self._reply = record_sizes()

    def call(self, mode: str, times: int, cores: Cores, descriptors: int = 0) -> float:
        """Seconds for one round trip of records that are as large as capmarshal's; it warms up by itself."""
        return self._seconds(mode, self._call - _HEAD, descriptors, self._reply, times, cores)

    def hand_over(self, size: int, count: int, times: int, cores: Cores) -> float:
        """Seconds for handing bytes and descriptors over."""
        return self._seconds("there", size, count, _HEAD, times, cores)

    def _seconds(self, mode: str, size: int, count: int, answer: int, times: int, cores: Cores) -> float:
        return float(_run(self._program, mode, *map(str, (size, count, answer, times, *cores)))) / 1e9


def _run(*command: str | Path) -> str:
    """What a program printed; its errors are its own to report."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}")
    return done.stdout


@contextlib.contextmanager
def compiled() -> Iterator[InC]:
    """It, as long as the block runs."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "c_program")
        try:
            _run("cc", "-O2", "-o", program, Path(__file__).with_suffix(".c"))
        except FileNotFoundError:
            raise SystemExit("there is no C compiler: cc is not on the PATH") from None
        yield InC(program)
