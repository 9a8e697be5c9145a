"""What a process, and the kernel for it, uses; a server does these things when it is told their names."""

import gc
import os
from pathlib import Path

from capmarshal._descriptors import reaper

# Objects up to this size are kept by size (Objects/obmalloc.c); a fresh process has no room for so many of each.
_SMALL_MAX, _STEP, _OF_EACH = 512, 16, 500
_PATIENCE = 60.0
_kept: list[bytes] = []


def open_files() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def settle() -> int:
    """Returns when everything that arrived in earlier calls is closed."""
    if not reaper.wait(_PATIENCE):
        raise TimeoutError("the server does not come to closing what it got")
    return 0


def mark() -> int:
    """Has callgrind begin a new count of this process, if it runs under it: see :mod:`bench.counting`."""
    # Else what was made before would be looked at, or not, as it happens.
    gc.collect()
    gc.freeze()
    os.getloadavg()
    return 0


def fill_up() -> int:
    """Has what is made from here on need memory of its own; what :func:`resident` is then.

    Objects of each small size, for which Python keeps room, take what room is free.
    """
    sizes = range(3 * _STEP, _SMALL_MAX + 1, _STEP)
    _kept[:] = [bytes(size - b"".__sizeof__()) for size in sizes for _ in range(_OF_EACH)]
    return resident()


def resident() -> int:
    """Bytes of this process's own memory, without what is waiting for the garbage collector."""
    gc.collect()
    # Its own pages: not the code that it shares with other processes.
    return _of("/proc/self/smaps_rollup", "Private_Clean:", "Private_Dirty:")


def kernel() -> int:
    """Bytes that the kernel has in its caches of objects: of all processes, and it gives back late."""
    return _of("/proc/meminfo", "Slab:")


def _of(file: str, *names: str) -> int:
    lines = Path(file).read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) * 1024
