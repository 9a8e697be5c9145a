"""The last thing that is done for an entrypoint: its objects are let go, its sockets are closed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from capmarshal._capabilities.space import space

if TYPE_CHECKING:
    from capmarshal._server.loop import Server
    from capmarshal._server.objects import Objects


class LettingGo:
    """Is done once, by whoever finds that nobody serves any more: two threads may, and a signal handler in between.

    Args:
        objects: of the entrypoint.
        server: of it.

    Attributes:
        done: nothing is left to do.
        lock: held meanwhile.
    """

    def __init__(self, objects: Objects, server: Server) -> None:
        self._objects = objects
        self._server = server
        self.done = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.lock = threading.RLock()
        self._thread: int | None = None

    def in_child(self) -> None:
        """Has nothing to do in a forked child, where all is the parent's."""
        self.done = True
        self._begin_anew()

    def now(self) -> None:
        """Does it, or waits until another thread has done it."""
        me = threading.get_ident()
        # A signal handler may come here in the middle of it.
        if self._thread == me:
            return
        with self.lock:
            if self.done:
                return
            self._thread = me
            try:
                # Not before: calls that are read while it ends find their objects, or nobody, but are not told of stale
                # ones.
                self._objects.clear(lambda target: space.managed.pop(id(target), None))
                self._server.close()
                self.done = True
            finally:
                self._thread = None

    def try_now(self) -> None:
        """Does it, unless another thread does it just now."""
        if self.lock.acquire(blocking=False):
            try:
                self.now()
            finally:
                self.lock.release()
