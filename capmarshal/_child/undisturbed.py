"""A stretch of a program in which nothing of others' runs: no signal handlers, no garbage collector."""

from __future__ import annotations

import contextlib
import gc
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the processor says of a thread's own mistakes: blocked, it ends the process untold.
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Has the block run through, in the only thread that this process has.

    Else a handler or a finalizer, which may do anything, would do it between two of its steps: start a thread, raise
    something.  Signals that arrive are heard at its end, and what handlers raise then is raised there.
    """
    collects, before = gc.isenabled(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # It may raise what a handler does, of a signal that came before, when they are blocked already.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        gc.disable()
        yield
    finally:
        if collects:
            gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
