"""Room in the descriptor table."""

from __future__ import annotations

import resource

# What a process needs in its table beside what it is asked for.
TABLE_SPARE = 256


def room_in_table(wanted: int) -> int:
    """Makes room for so many descriptors, here and in the processes to come; for how many there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    all_of_it = wanted + TABLE_SPARE
    if soft != resource.RLIM_INFINITY and soft < all_of_it:
        soft = all_of_it if hard == resource.RLIM_INFINITY else min(all_of_it, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - TABLE_SPARE)
