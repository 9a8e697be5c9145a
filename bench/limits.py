"""Room in the descriptor table."""

from __future__ import annotations

import resource
import sys

# What a process needs in its table beside what it is asked for.
_SPARE = 256


def table() -> int:
    """How many descriptors a process may have open: the soft limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def room_in_table(wanted: int) -> int:
    """Makes room for so many descriptors, here and in the processes to come; for how many there is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    all_of_it = wanted + _SPARE
    if table() < all_of_it:
        soft = all_of_it if hard == resource.RLIM_INFINITY else min(all_of_it, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, table() - _SPARE)
