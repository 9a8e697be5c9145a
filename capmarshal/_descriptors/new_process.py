"""Descriptors for a process that multiprocessing creates: what is pickled for it may bring some.

multiprocessing pickles a process's arguments in the thread that creates it, and hands down what they ask for.  At any
other time, for a queue or a file, a descriptor would be pickled as a number, which says nothing to whoever reads it.
multiprocessing is not imported here: whoever hasn't done so creates no process by it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# SCM_MAX_FD of the kernel, less those that forkserver sends beside: connect_to_new_process() in
# multiprocessing/forkserver.py.
_FORKSERVER_MAX = 253 - 4

_LAST_STANDARD = 2


def being_created() -> Any:
    """What multiprocessing has for the process that the current thread creates; None where it creates none."""
    context = sys.modules.get("multiprocessing.context")
    return context.get_spawning_popen() if context is not None else None


def refuse_unless_created(why: str) -> None:
    """Refuses to pickle what can only be pickled for a process that is being created.

    Raises:
        TypeError: there is none; says ``why``, and what works.
    """
    if being_created() is None:
        raise TypeError(
            f"{why}. Another process gets it as an argument of a call, or when it is created: as an argument of "
            "multiprocessing.Process, or among the initargs of a pool"
        )


def hand_down(number: int) -> Any:
    """What is to be pickled for a descriptor, which the process that is being created then inherits; borrowed.

    Raises:
        ValueError: more than forkserver hands down.
    """
    process = being_created()
    if process.method == "forkserver" and len(process._fds) >= _FORKSERVER_MAX:  # noqa: SLF001 - it refuses in no words
        raise ValueError(
            f"multiprocessing's forkserver hands no more than {_FORKSERVER_MAX} descriptors down to a process: use the "
            "method spawn, or pass the others as arguments of a call"
        )
    return process.DupFd(process.duplicate_for_child(number))


def inherited(handed_down: Any) -> int:
    """In the process that was created: the descriptor for what was pickled, which the caller owns.

    Nobody does when Ctrl-C comes here: that ends a process which is still being created.
    """
    number: int = handed_down.detach()
    if number <= _LAST_STANDARD:
        # The same number as in its creator, and so a standard stream.
        return os.dup(number)
    os.set_inheritable(number, False)
    return number
