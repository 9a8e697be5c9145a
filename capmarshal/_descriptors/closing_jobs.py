"""What the reaper is given to close, and by whom it was sent: a sender occupies few of the reaper's threads."""

from __future__ import annotations

import collections
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.closing import close_unladen, close_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.descriptor_list import DescriptorList

# How many of the threads may be occupied by one sender, and by all that have the same user.
THREADS_OF_SENDER = 2
_THREADS_OF_USER = 8


class Sender:
    """Whose descriptors they are: a peer, or its user.

    Args:
        of: the user of a peer.

    Attributes:
        waiting: how many of his, and of those that are ``of`` him, the reaper has been given and has not closed yet.
    """

    __slots__ = ("limit", "of", "parked", "threads", "waiting")

    def __init__(self, of: Sender | None = None) -> None:
        self.of: Sender | None = of
        self.waiting: int = 0
        # Of the reaper's threads, those that close his, and what waits for one of them to end.
        self.threads: int = 0
        self.parked: collections.deque[tuple[int, Job]] = collections.deque()
        self.limit: int = THREADS_OF_SENDER
        if of is not None:
            of.limit = _THREADS_OF_USER

    @property
    def chain(self) -> tuple[Sender, ...]:
        """Himself, and his user: not kept, or he would not go before the garbage collector comes."""
        return (self,) if self.of is None else (self, self.of)


class Job:
    """What came in one record: closed one after the other, by one thread."""

    __slots__ = ("_files", "count", "descriptors", "sender", "tell", "then")

    def __init__(
        self, descriptors: DescriptorList, left: int, files: list[Any], sender: Sender, then: Callable[[], None] | None
    ) -> None:
        self.descriptors = descriptors
        self._files = files
        self.count = left + len(files)
        self.sender = sender
        self.then = then
        # Called with each of the descriptors where they have to wait for a thread; None once that is done.
        self.tell: Callable[[int], None] | None = None

    def in_child(self, sender: Sender) -> None:
        """Who was to be told is the parent's."""
        self.then, self.tell, self.sender = None, None, sender

    def left(self) -> list[int]:
        """The descriptors that are open still."""
        return [number for number in self.descriptors.numbers() if number >= 0]

    def will_wait(self) -> None:
        """Has it told that they have to wait."""
        tell, self.tell = self.tell, None
        if tell is None:
            return
        for number in self.left():
            with contextlib.suppress(Exception):
                tell(number)

    def run(self) -> None:
        """Closes all of it; what goes wrong with one is nobody's concern.

        Where no thread can be had, and the main one closes, Ctrl-C may raise here: it is to be run again then.
        """
        self.descriptors.close()
        while self._files:
            try:
                close_whole(self._files[0])
            except Exception:  # noqa: BLE001, S110 - as said
                pass
            except BaseException:
                # In the reaper's own threads no signal handler runs: there it is the file's.
                if threading.current_thread() is threading.main_thread():
                    raise
            finally:
                # Whatever it raises, it is not closed again; what Ctrl-C has left open is closed when it goes.
                self._files.pop(0)


class Ends(Job):
    """Ends of channels: those in whose queues nothing lies that may block wait for none of their sender's.

    Which these are is not known before a thread has looked: that is not the serving thread's to do.
    """

    __slots__ = ("_is_new",)

    def __init__(
        self, ends: DescriptorList, sender: Sender, tell: Callable[[int], None], then: Callable[[], None] | None
    ) -> None:
        super().__init__(ends, len(ends), [], sender, then)
        self.tell, self._is_new = tell, True

    def in_child(self, sender: Sender) -> None:
        """Likewise: a copy is closed, and nothing is done to the end."""
        super().in_child(sender)
        self._is_new = False

    def close_unladen(self) -> int:
        """Closes those, the first time; how many."""
        is_new, self._is_new = self._is_new, False
        if not is_new:
            return 0
        with contextlib.suppress(Exception):
            close_unladen(self.descriptors)
        return self.count - len(self.left())

    def run(self) -> None:
        """As said.  Of one alone the kernel tells when its closing begins; of several, one may wait for the other."""
        if len(self.left()) > 1:
            self.will_wait()
        super().run()
