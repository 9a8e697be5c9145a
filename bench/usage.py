"""What a process, and the kernel for it, uses."""

from __future__ import annotations

import gc
from pathlib import Path


def open_files() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident() -> int:
    """Bytes of this process's own memory, without what is waiting for the garbage collector."""
    gc.collect()
    # Its own pages: not the code that it shares with other processes.
    wanted = ("Private_Clean:", "Private_Dirty:")
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(wanted)) * 1024


def kernel() -> int:
    """Bytes that the kernel has in its caches of objects: of all processes, and it gives back late."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:")) * 1024
