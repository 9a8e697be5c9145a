"""Who serves a stream that is an argument, in a thread, which does not keep the interpreter from ending.

What iterates is closed by that thread, soon after nobody can pull any more.  A program that ends right after its call
would not see that: so the end of the interpreter waits for it, and but a moment for what somebody may hold.
"""

from __future__ import annotations

import atexit
import time
import weakref
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import private
from capmarshal._kernel.deadline import ahead
from capmarshal._kernel.native import NOW, lib
from capmarshal._server.service import Service

if TYPE_CHECKING:
    from capmarshal._server.streams import Producer

# Seconds, for all together, when the interpreter ends: to close what iterates, which nobody pulls from any more; before
# that to hear that nobody does, or to come out of making an item, which may wait for ever; and between two looks.
_TO_CLOSE, _TO_HEAR, _LOOK = 1.0, 0.1, 0.01


class PassedService(Service):
    """Serves one stream in a thread.

    Attributes:
        producer: gives its items; None before it is there.
    """

    producer: Producer | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _services.add(self)

    def runs(self) -> bool:
        """Whether an item is being made."""
        return self.producer is not None and self.producer.runs

    @property
    def closes(self) -> bool:
        """Whether nothing is left but to close what iterates: it was told to end, or nobody holds the stream."""
        return (self.closed or self._shut()) and not self.runs()

    def _shut(self) -> bool:
        """Whether nobody can come through its door any more."""
        # While nobody closes them.
        with private.lock:
            ends = [end.number for end in self.grants.ends() if end.number >= 0]
            return all(lib.cm_wait(end, 0, NOW) > 0 for end in ends)

    def let_close(self, until: int, at_least_until: int) -> None:
        """Waits for its end: as long as there is something to wait for, and until the earlier time whatever it does."""
        session = self._session
        while session is not None and session.active:
            left = until if self.closes else at_least_until
            if session.wait(min(ahead(_LOOK), left)) or time.monotonic_ns() >= left:
                return


_services: weakref.WeakSet[PassedService] = weakref.WeakSet()


@atexit.register
def _let_all_close() -> None:
    to_close, to_hear = ahead(_TO_CLOSE), ahead(_TO_HEAR)
    for service in tuple(_services):
        service.let_close(to_close, to_hear)
