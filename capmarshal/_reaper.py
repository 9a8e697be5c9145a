"""Closes what a stranger sent, in a thread of its own, since closing can block.

A TCP socket with SO_LINGER and unsent data takes as long to close as its sender chose, a file of a FUSE file
system as long as its server likes; and a unix socket may have either in its queue.  None of that may delay a
thread that serves others.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import Protocol

from capmarshal import _private
from capmarshal._descriptor import Descriptor
from capmarshal._lx import lib


class Closable(Protocol):
    """A file, a socket, a :class:`Descriptor`: its close() does nothing the second time."""

    def close(self) -> None:
        """Closes it."""
        ...


_pending: deque[Closable] = deque()
_arrived = threading.Semaphore(0)
_thread: threading.Thread | None = None


def _run(arrived: threading.Semaphore) -> None:
    while True:
        arrived.acquire()
        # Dropped only after it is closed: a child forked meanwhile finds it, and closes its own copy.
        with contextlib.suppress(Exception):
            _pending[0].close()
        _pending.popleft()


def close(closable: Closable) -> None:
    """Closes ``closable`` soon, elsewhere; the reaper owns it now.  Errors in closing are nobody's."""
    global _thread  # one reaper a process, started when first needed
    _pending.append(closable)
    _arrived.release()
    if _thread is None:
        with _private.lock:
            if _thread is None:
                _thread = threading.Thread(target=_run, args=(_arrived,), name="capmarshal reaper", daemon=True)
                _thread.start()


def close_descriptor(descriptor: int) -> None:
    """Closes a descriptor that a stranger sent: at once where that is known to be quick, else by the reaper."""
    if lib.cm_closes_quickly(descriptor):
        lib.lx_close(descriptor)
    else:
        close(Descriptor(descriptor))


class _Marker:
    def __init__(self) -> None:
        self.reached = threading.Event()

    def close(self) -> None:
        self.reached.set()


def wait(seconds: float) -> bool:
    """Waits until all that was handed over before is closed; False if that took longer than ``seconds``."""
    marker = _Marker()
    close(marker)
    return marker.reached.wait(seconds)


def _forget() -> None:
    global _arrived, _thread  # the parent's thread does not exist in the child
    _thread = None
    # Whoever waits for a marker is the parent's, and its lock may have been copied while it was held.
    for marker in [item for item in _pending if isinstance(item, _Marker)]:
        _pending.remove(marker)
    _arrived = threading.Semaphore(len(_pending))


_private.run_in_child(_forget)
