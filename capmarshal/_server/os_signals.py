"""A signal of the kernel's (signal(7)) wakes the loop of the main thread, at whatever instruction it comes.

Python runs a signal's handler between two instructions.  A signal that comes after the last of them, and before
epoll_pwait(2) has begun, interrupts nothing, and its handler would run when the next client calls, which may be never.
So Python is told to write a byte to a descriptor that the loop watches, too (``signal.set_wakeup_fd()``), as event
loops do.

And what a handler raises while a finalizer or the callback of a weak reference runs, Python reports and drops
(``sys.unraisablehook``).  Objects go in most turns, so Ctrl-C would now and then be lost: it is raised in the next one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from capmarshal._descriptors import private
from capmarshal._kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.slots import Slots

_write_to = functools.partial(signal.set_wakeup_fd, warn_on_full_buffer=False)

# The writers of all pairs that Python may write to: kept open until it certainly does not, for their numbers might be
# somebody else's after that.
_written_to: set[Private] = set()

# Of no signal: there is something to be raised again.
_DROPPED = b"\0"


class SignalWatch:
    """Has signals wake a server's loop while that runs in the main thread, where Python runs their handlers.

    Args:
        slots: of the server.
        ends_service: whether something that was raised is to end the service.
    """

    def __init__(self, slots: Slots, ends_service: Callable[[BaseException], bool]) -> None:
        self._slots = slots
        self._ends_service = ends_service
        self._ends: tuple[Private, Private] | None = None
        self._slot = 0
        # Where Python has written before, if that is known to be changed.
        self._before: list[int] = []
        # Where it wrote when serving ended, if it was already kept from writing there.
        self._found: list[int] = []
        self._came = b""
        # Told of what Python drops before this was, while it is; and what was dropped since.
        self._told_before: Callable[[sys.UnraisableHookArgs], object] | None = None
        self._dropped: list[BaseException] = []

    def begin(self) -> None:
        """Begins; without room for two descriptors the loop is woken by what interrupts its wait alone."""
        if threading.current_thread() is not threading.main_thread():
            return
        with contextlib.suppress(KernelError):
            # Ctrl-C may have kept it from ending: then it is there, and perhaps watched.
            reader, writer = self._ends = self._ends or private.make_pair("having signals wake the loop")
            for end in (reader, writer):
                os.set_blocking(end.number, False)
            self._slots.unwatch_number(reader.number)
            self._slot = self._slots.watch_own(reader, self._drain)
            _written_to.add(writer)
            # In one step, so that Ctrl-C does not come between the change and the note of what was there.  ValueError:
            # the main thread of another interpreter than the first, in which no handler runs.
            with contextlib.suppress(ValueError):
                self._before.extend(map(_write_to, [writer.number]))
            if self._told_before is None:
                self._told_before = sys.unraisablehook
            sys.unraisablehook = self._tell

    def _tell(self, dropped: sys.UnraisableHookArgs) -> None:
        """Is told of what Python drops: what is to end the service ends it in the next turn."""
        error, ends, told_before = dropped.exc_value, self._ends, self._told_before or sys.__unraisablehook__
        here = threading.current_thread() is threading.main_thread()
        if ends is None or error is None or not here or not self._ends_service(error):
            told_before(dropped)
            return
        self._dropped.append(error)
        # One that is full is readable, too.
        with contextlib.suppress(BlockingIOError):
            os.write(ends[1].number, _DROPPED)

    def _raise_dropped(self) -> None:
        if self._dropped:
            raise self._dropped.pop()

    def _drain(self) -> None:
        """Takes the bytes: the handlers of what they stand for run before the loop waits again.

        Raises:
            KeyboardInterrupt, SystemExit: that Python has dropped.
        """
        if self._ends is None:
            return
        with contextlib.suppress(BlockingIOError):
            while came := os.read(self._ends[0].number, 1):
                # Once each, as the kernel has it of signals that nobody has handled yet.
                self._came += came if came not in self._came and came != _DROPPED else b""
        self._raise_dropped()

    def end(self) -> None:
        """Ends what :meth:`begin` began, where it did; who was told of signals before, is told of those that came.

        What a signal handler raises may keep it from ending: called again, it goes on.
        """
        if self._ends is None:
            return
        reader, writer = self._ends
        self._drain()
        if self._before:
            if not self._found:
                # In one step, as in begin().
                self._found.extend(map(_write_to, [-1]))
            now = self._found[-1]
            # What is there instead is of a method, and stays.
            _write_again_to(self._before[-1] if now == writer.number else now, self._came)
        self._tell_as_before()
        self._before, self._found, self._came = [], [], b""
        _written_to.discard(writer)
        slot, self._slot = self._slot, 0
        if slot:
            self._slots.unwatch_own(slot)
        # Before they are closed: a pair that is kept is an open one.
        self._ends = None
        reader.close()
        writer.close()

    def _tell_as_before(self) -> None:
        # What is there instead is of a method, and stays.
        if self._told_before is not None and sys.unraisablehook == self._tell:
            sys.unraisablehook = self._told_before
            self._told_before = None

    def in_child(self) -> None:
        """In a forked child, where the pair is closed: nothing is written to its number."""
        self._came = b""
        self._dropped.clear()
        self._tell_as_before()
        before, self._before, self._found, self._ends, self._slot = self._before, [], [], None, 0
        if before:
            _write_again_to(before[-1], b"")


def _write_again_to(number: int, came: bytes) -> None:
    """Has Python write to what it has written to before, and writes there what came meanwhile."""
    # Closed meanwhile, perhaps, or full.
    with contextlib.suppress(ValueError, OSError):
        _write_to(number)
        if number >= 0 and came:
            os.write(number, came)
