"""SignalReceiver: is told that something has happened, by whoever holds its signal."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from typing import TYPE_CHECKING

from capmarshal._capabilities.capability import open_door_of
from capmarshal._capabilities.signal_capability import Signal, make_signal_door, send
from capmarshal._capabilities.signal_end import SignalEnd
from capmarshal._descriptors import private
from capmarshal._descriptors.descriptor import OnlyPolled
from capmarshal._kernel.deadline import after, words_for
from capmarshal._kernel.errors import CallTimeout, Closed, Disconnected
from capmarshal._kernel.waiting import Wait, drive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from capmarshal._kernel.waiting import Steps

# Records that are taken before it is looked at the clock again.
_AT_ONCE = 64


class SignalReceiver(OnlyPolled):
    """Is told that something has happened, by whoever holds its signal, and of nothing else.

    It takes two descriptors of this process, and one in each other that holds the signal.  One that is forgotten is
    closed.  It is this process's alone: a forked child has its signal, and not the receiver.

    Who may be trusted less than another gets a receiver of its own: holders of one signal can shut its door
    (shutdown(2)), and fill it with what is no signal.

    Raises:
        TableFull: no room for the two descriptors.
    """

    __slots__ = ("__weakref__", "_closed", "_door", "_end", "_signal", "_told", "_waiting")

    _advice = "what is passed on is its signal, as receiver.signal"

    def __init__(self) -> None:
        self._closed = self._told = False
        # Those who wait: the last closes what was closed meanwhile, so that its number is nobody else's before.
        self._waiting = 0
        end, capability = make_signal_door()
        self._end = SignalEnd(end)
        self._door = open_door_of(capability)
        self._signal: Signal | None = capability.cast(Signal)

    @property
    def signal(self) -> Signal:
        """What is to be handed to whoever may send: as an argument, a result, or any other way of capabilities.

        Raises:
            Closed: the receiver is closed.
        """
        if self._signal is None:
            raise Closed("this SignalReceiver was closed")
        return self._signal

    @property
    def closed(self) -> bool:
        """Whether it was closed, or this process is a child of the one that made it."""
        return self._closed or self._end.end.number < 0

    def wait(self, timeout: float | None = None) -> int:
        """Waits until a signal has come since the last time, and takes all that are there.

        Several threads may wait: each signal wakes one of them at least.

        Args:
            timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.

        Returns:
            How many there were, 1 or more; as many may have been sent besides that found no room.

        Raises:
            CallTimeout: none came.
            Disconnected: none will come any more: nobody holds the signal, or one of its holders has shut it.
            Closed: it is closed, also while this waits; or it is another process's, of which this one is a fork.
            ValueError, TypeError: no time to wait.
        """
        with self._held() as number:
            return drive(self._receiving(timeout, number))

    def fileno(self) -> int:
        """A descriptor that is readable when :meth:`wait` would not wait; for selectors, and an event loop's readers.

        Borrowed, and only to be polled.  It may be readable where ``wait(0)`` finds nothing: what came was no signal.

        Raises:
            Closed: it is closed.
        """
        self._check_open()
        return self._end.end.number

    def close(self) -> None:
        """Ends it: who sends finds it gone, and who waits is told so.  Does nothing the second time."""
        with private.lock:
            self._closed, self._signal = True, None
            waiting = self._waiting
        if waiting:
            # It is readable for all of them: one that is full is, too.
            send(self._door)
        else:
            self._end.close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this SignalReceiver was closed")
        if self._end.end.number < 0:
            raise Closed("this SignalReceiver is its parent's: this process is a fork of the one that made it")

    @contextlib.contextmanager
    def _held(self) -> Iterator[int]:
        """The number of its descriptor, which is nobody else's within the block; raises as :meth:`wait`."""
        with private.lock:
            self._check_open()
            self._waiting += 1
            number = self._end.end.number
        try:
            yield number
        finally:
            with private.lock:
                self._waiting -= 1
                last = self._closed and not self._waiting
            if last:
                self._end.close()

    def _receiving(self, timeout: float | None, number: int) -> Steps[int]:
        """As :meth:`wait`, in steps, where it is held.

        Args:
            timeout: as there.
            number: of what is readable when its descriptor is.
        """
        deadline = after(timeout)
        while not (count := self._take()):
            # What comes may be no signal, again and again.
            if time.monotonic_ns() >= deadline or not (yield Wait(number, select.POLLIN, deadline)):
                raise CallTimeout(f"no signal came {words_for(timeout, deadline)}", ran="no")
        return count

    def _take(self) -> int:
        """How many signals there are, which are taken; raises as :meth:`wait`."""
        self._check_open()
        count = self._end.take(_AT_ONCE)
        if self._end.junk and not self._told:
            self._told = True
            _log("a SignalReceiver was sent what is no signal, by one of those who hold its signal")
        if not count and self._end.over:
            raise Disconnected(f"no signal will come: {self._end.over}", ran="no")
        return count

    def __reduce__(self) -> str:
        # What copy.copy() asks, too.
        raise TypeError("a SignalReceiver is neither copied nor pickled: what goes to another process is its signal")

    def __repr__(self) -> str:
        return f"<SignalReceiver{' closed' if self.closed else ''}>"


# For who awaits it.
held, receiving = SignalReceiver._held, SignalReceiver._receiving  # noqa: SLF001 - of this module


def _log(words: str) -> None:
    """Writes a line; whoever has not imported logging has not asked for any."""
    if "logging" in sys.modules:
        with contextlib.suppress(Exception):
            sys.modules["logging"].getLogger("capmarshal").warning(words)
