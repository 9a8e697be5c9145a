"""What a server does when it is sent a signal: something of the application's, between calls.

Each signal has a door of its own, which is watched beside the others; all of them have the turns of one.  A turn takes
a few records and runs the handler once, however many signals these were; what comes meanwhile waits for the next.
"""

from __future__ import annotations

import collections
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._descriptors import private
from capmarshal._kernel.weakly import weakly
from capmarshal._server.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.signal_end import SignalEnd
    from capmarshal._descriptors.private import Private
    from capmarshal._server.dispatch import Ask, Asked, Dispatcher
    from capmarshal._server.journal import Journal
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers

# Records that are taken in one turn: more than lie there, unless a holder has lengthened the queue.
_AT_ONCE = 16


class SignalHandler:
    """One handler, and the receiver's end of its signal.

    Args:
        handler: what is called.
        end: taken.

    Attributes:
        handler: as given.
        end: likewise.
        due: a signal may have come for which it has not been called.
        watch: of the end; None where it has not been yet.
        runs: it is being awaited.
        asking: what that is.
    """

    __slots__ = ("asking", "due", "end", "handler", "runs", "watch")

    def __init__(self, handler: Callable[[], object], end: SignalEnd) -> None:
        self.handler = handler
        self.end = end
        self.due = self.runs = False
        self.watch: Watch | None = None
        self.asking: Asked | None = None

    def __repr__(self) -> str:
        return f"on_signal({self.handler!r})"

    def cancel(self) -> None:
        """Has it awaited no longer."""
        asking, self.asking, self.runs = self.asking, None, False
        if asking is not None:
            asking.cancel()


class SignalHandlers:
    """The signal handlers of one server.

    Args:
        slots: of the server.
        timers: of its loop.
        dispatcher: runs them.
        journal: of the entrypoint.
        ending: whether the server is to end.
        wake_up: has the loop come round.

    Attributes:
        ask: has a handler awaited, where an event loop serves.
    """

    def __init__(
        self,
        slots: Slots,
        timers: Timers,
        dispatcher: Dispatcher,
        journal: Journal,
        *,
        ending: Callable[[], bool],
        wake_up: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._timers = timers
        self._dispatcher = dispatcher
        self._journal = journal
        self._ending = ending
        self._wake_up = wake_up
        # Who holds many signals, and floods all, takes no more from others than who holds one.
        self._turns = slots.add_shared()
        self._closed = False
        self._all: dict[SignalHandler, None] = {}
        # Those that are to be looked at when the loop comes round.
        self._new: collections.deque[SignalHandler] = collections.deque()
        self.ask: Ask | None = None

    def add(self, handler: SignalHandler) -> bool:
        """Takes one more, from any thread; False, and the caller still owns its end, where nobody serves any more."""
        with private.lock:
            if not self._closed:
                self._all[handler] = None
                self._new.append(handler)
        if not self._closed:
            self._wake_up()
        return not self._closed

    def settle(self) -> None:
        """Has signals taken of those that are new, or were interrupted, in the loop's thread."""
        while self._new:
            if self._new[0] in self._all and not self._new[0].runs:
                self._begin(self._new[0])
            # Last: what Ctrl-C interrupts is done again.
            self._new.popleft()

    def _begin(self, handler: SignalHandler) -> None:
        if handler.watch is None:
            ready = partial(weakly(self._come, None), handler)
            handler.watch = Watch(self._slots, self._timers, self._ending, handler.end.end, ready, self._turns)
        handler.watch.resume()
        if handler.due:
            self._run(handler)

    def _come(self, handler: SignalHandler) -> None:
        """Takes some of what has come, and has the handler run if there is a signal among it."""
        # First: where it is not known what was taken, the handler runs once too often.
        handler.due = True
        try:
            handler.due = handler.end.take(_AT_ONCE) > 0
            if handler.end.junk:
                handler.end.junk = False
                self._journal.warning(
                    None, "signal", "one of those who hold the signal of %s sends something else", handler
                )
            if handler.due:
                self._run(handler)
        except BaseException:
            # A signal handler's of the program's, which may let service go on, or begin again.
            self._new.append(handler)
            self._timers.after(0, self.settle)
            raise
        if handler.end.over:
            # What came before that has been taken, and the handler has run, or runs.
            self._end(handler)

    def _run(self, handler: SignalHandler) -> None:
        if self.ask is not None:
            self._await(handler, self.ask)
            return
        handler.due = False
        try:
            self._dispatcher.run_beside(repr(handler), handler.handler)
        except BaseException as error:
            self._failed(handler, error)
            if not isinstance(error, Exception) and self._dispatcher.calls.ends_service(error):
                raise

    def _await(self, handler: SignalHandler, ask: Ask) -> None:
        """Has the handler awaited; no other signal is taken until it has ended."""
        if handler.watch is not None:
            handler.watch.end()
        handler.due, handler.runs = False, True
        # It may have ended when this returns; what has ended is not kept, for it refers to the handler.
        asking = ask(handler.handler, partial(self._awaited, handler), "on_signal")
        if handler.runs:
            handler.asking = asking

    def _awaited(self, handler: SignalHandler, _given: object, failure: BaseException | None) -> None:
        handler.asking, handler.runs = None, False
        if failure is not None:
            self._failed(handler, failure)
        if handler in self._all and handler.watch is not None:
            handler.watch.resume()

    def _failed(self, handler: SignalHandler, error: BaseException) -> None:
        self._journal.error(None, "on_signal", "%s failed", handler, exc_info=error)

    def _end(self, handler: SignalHandler) -> None:
        """Ends one, in the loop's thread."""
        with private.lock:
            self._all.pop(handler, None)
        if handler.watch is not None:
            handler.watch.end()
            # What it calls refers to the handler.
            handler.watch = None
        handler.end.close()

    def end_running(self) -> None:
        """Has none awaited any more; those that were are called again when it is served again."""
        for handler in tuple(self._all):
            if handler.runs:
                handler.cancel()
                handler.due = True
                self._new.append(handler)

    def ends(self) -> list[Private]:
        """The receivers' ends that are open."""
        with private.lock:
            return [handler.end.end for handler in self._all]

    def close(self) -> None:
        """Ends all of them, in the loop's thread or where nobody serves."""
        with private.lock:
            self._closed = True
            handlers = tuple(self._all)
        for handler in handlers:
            self._end(handler)
        self._new.clear()

    def in_child(self) -> None:
        """Has none in a forked child."""
        self._closed = True
        self._all.clear()
        self._new.clear()
