"""Limits of this process alone, which it cannot raise again: setrlimit(2).

None that is counted over all of a user's processes, but for those that it is to have next to nothing of.
"""

from __future__ import annotations

import os
import resource
import threading
from typing import Final

# Bytes: what it needs beyond what is mapped, to go on at all; and of the stack of a thread, where there is no limit.
_ROOM: Final = 16 << 20
_STACK: Final = 8 << 20

# What it has no use for.  Of signals: what is queued for it is counted with its user's.
_LITTLE = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_MEMLOCK, 0),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_NICE, 0),
    (resource.RLIMIT_RTPRIO, 0),
    (resource.RLIMIT_SIGPENDING, 128),
)


def mapped() -> int | None:
    """Bytes that this process maps, as RLIMIT_AS counts them; None where nobody tells."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib is much to import for that
            return int(file.readline().split()[0]) * resource.getpagesize()
    except OSError:
        return None


def opened(below: int) -> int:
    """How many descriptors of lower numbers this process has; 0 where nobody tells."""
    try:
        numbers = os.listdir("/proc/self/fd")  # noqa: PTH208 - pathlib is much to import for that
    except OSError:
        return 0
    # One is of the directory.
    return sum(int(number) < below for number in numbers) - 1


def needed(threads: int) -> int:
    """Bytes that this process needs to go on, beside those that are mapped.

    Args:
        threads: how many of these it starts at once.
    """
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    each = threading.stack_size() or (stack if stack != resource.RLIM_INFINITY else _STACK)
    return _ROOM + threads * each


def lower(kind: int, soft: int, hard: int) -> None:
    """Sets a limit, no higher than it is."""
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(kind, (soft, hard))


def put_on(*, memory: int | None, cpu: int | None, descriptors: int) -> None:
    """Limits this process.

    Args:
        memory: bytes that it may map, and that each file or memfd of its may have.
        cpu: seconds; then SIGXCPU ends it, or a second later SIGKILL.
        descriptors: that it may have open.

    Raises:
        OSError: a filter refuses that.
    """
    for kind, most in _LITTLE:
        lower(kind, most, most)
    lower(resource.RLIMIT_NOFILE, descriptors, descriptors)
    if cpu is not None:
        lower(resource.RLIMIT_CPU, cpu, cpu + 1)
    if memory is not None:
        lower(resource.RLIMIT_FSIZE, memory, memory)
        lower(resource.RLIMIT_AS, memory, memory)
