"""Filling this process's descriptor table."""

from __future__ import annotations

import contextlib
import os


def fill(room):
    """Leaves room for so many descriptors; the ones that take the others' places."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for _ in range(room):
        os.close(taken.pop())
    return taken
