"""The program in C, the limit to measure against: compiled when it is first needed."""

import functools
import subprocess
import tempfile
from pathlib import Path

from bench.processes import Cores
from bench.servers import Works
from capmarshal._protocol import wire
from capmarshal._typed.method import methods_of
from capmarshal._typed.outgoing import Outgoing

# The two numbers at the beginning of each record, and of each answer.
_HEAD = 16
# The program is removed with it, when this process ends.
_directory = tempfile.TemporaryDirectory()


def record_sizes() -> tuple[int, int]:
    """How many bytes capmarshal's CALL and REPLY for ``add(1, 2)`` have, for C to carry as many."""
    add = methods_of(Works)[b"add"]
    arguments = add.encode_arguments((1, 2), Outgoing())
    call = wire.pack_call(1, bytes(wire.BADGE_SIZE), wire.NO_LIMIT, 0, add.wire_name, [], 0, arguments)
    reply = wire.pack_reply(1, [], 0, add.encode_result(3, Outgoing()))
    return len(call), len(reply)


def call(mode: str, times: int, cores: Cores, descriptors: int = 0) -> float:
    """Seconds for one round trip of records that are as large as capmarshal's; it warms up by itself."""
    sent, answered = record_sizes()
    return _seconds(mode, sent - _HEAD, descriptors, answered, times, *cores)


def hand_over(size: int, count: int, times: int, cores: Cores) -> float:
    """Seconds for handing bytes and descriptors over."""
    return _seconds("there", size, count, _HEAD, times, *cores)


def _seconds(mode: str, *numbers: int) -> float:
    return float(_run(_compiled(), mode, *map(str, numbers))) / 1e9


@functools.cache
def _compiled() -> str:
    program = str(Path(_directory.name, "c_program"))
    try:
        _run("cc", "-O2", "-o", program, str(Path(__file__).with_suffix(".c")))
    except FileNotFoundError:
        raise SystemExit("there is no C compiler: cc is not on the PATH") from None
    return program


def _run(*command: str) -> str:
    """What a program printed; its errors are its own to report."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}")
    return done.stdout
