"""The server's loop where somebody else waits: an event loop awaits the epoll descriptor, and takes turns in between.

An epoll set is readable when something in it is.  What it has reported already waits in C: so nobody may await it
before a turn has found that there is nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capmarshal._kernel.native import FOREVER, NOW, ffi, lib
from capmarshal._kernel.weakly import weakly
from capmarshal._server.concurrency import Concurrency
from capmarshal._server.loop import Server, nothing
from capmarshal._server.waiting_calls import WaitingCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.dispatch import Ask, Asked, Dispatcher, Then
    from capmarshal._server.journal import Journal
    from capmarshal._server.limits import Limits
    from capmarshal._server.objects import Objects
    from capmarshal._typed.colour import Colour


class AwaitedServer(Server):
    """Serves one door, as :class:`Server`; what it takes besides is said there.

    Args:
        concurrency: how many calls may run at a time.

    Attributes:
        concurrency: the calls that run.
    """

    def __init__(
        self,
        door: Private,
        dispatcher: Dispatcher,
        objects: Objects,
        journal: Journal,
        colour: Colour,
        *,
        max_bytes: int,
        max_descriptors: int,
        limits: Limits,
        concurrency: int,
    ) -> None:
        super().__init__(
            door,
            dispatcher,
            objects,
            journal,
            colour,
            max_bytes=max_bytes,
            max_descriptors=max_descriptors,
            limits=limits,
        )
        self._ring = ffi.addressof(self._turn, "ring")
        self.concurrency = Concurrency(
            self._ring, self._channels, self._records, self._endings, concurrency, weakly(self._rouse, None)
        )
        self.concurrency.outlived = weakly(self.grants.unreachable.channel_ends, None)
        self._waiting_calls = WaitingCalls(
            self._ring, self.concurrency.full, self.concurrency.why_full, journal, self._timers
        )
        self._turns.never_wait(self.concurrency.spoken)
        # Until when the event loop waits; NOW: it does not.
        self._waited_for = NOW
        self._come_round: Callable[[], None] = weakly(self._wake_up, None)

    def come_round_by(self, come_round: Callable[[], None]) -> None:
        """Has the loop told by ``come_round``, in its own thread, that there is something to do."""
        self._come_round = come_round

    def ask_by(self, ask: Ask) -> None:
        """Has that asked by ``ask`` which says what who connects gets, and all handlers awaited."""
        rouse = weakly(self._rouse, None)

        def roused(asked: Callable[[], object], then: Then, name: str) -> Asked:
            def and_on(given: object, failure: BaseException | None) -> None:
                then(given, failure)
                rouse()

            return ask(asked, and_on, name)

        self._listening.ask = self.signal_handlers.ask = self.grants.unreachable.ask = roused

    @property
    def number(self) -> int:
        """The epoll descriptor's; -1 in a forked child."""
        return self._epoll.number

    @property
    def told_to_end(self) -> bool:
        """Whether no more calls are taken."""
        return self._ending() or self._epoll.number < 0

    def begin(self) -> None:
        """Begins to serve."""
        self._running = True
        # Of those that were new when it was last interrupted, nobody would tell again.
        self._listening.begin()
        self.grants.settle()
        self.signal_handlers.settle()

    def end(self) -> None:
        """Serves no more: it may begin again, perhaps in another event loop."""
        self._come_round = weakly(self._wake_up, None)
        try:
            self._listening.end_asked()
            self.signal_handlers.end_running()
            self.grants.unreachable.end_telling()
        finally:
            self._ran()

    def take_some(self, most: int) -> bool:
        """Takes so many turns at most; whether there may be more to do now."""
        self._waited_for = NOW
        # First, as after a call in a thread: whoever has moved while the event loop was busy has not stood still.
        if self._timers.next is not FOREVER and time.monotonic_ns() >= self._timers.next:
            self._run_timers()
        turns = self._turns
        for _ in range(most):
            turns.idle = False
            turns.take()
            if turns.idle or self._epoll.number < 0:
                break
        return not turns.idle

    def may_wait(self) -> int:
        """Until when to wait for the epoll descriptor, after turns that have found nothing more."""
        # It would be sent when something comes, which may be after its client has it.
        assert not self._turns.reply_is_due  # noqa: S101 - an answer is sent when its method has ended
        if self._ring.bounds:
            self._waiting_calls.look()
        self._waited_for = self._timers.next
        return self._waited_for

    def _rouse(self) -> None:
        """Has the loop come round where there is something to do of which the epoll descriptor does not tell."""
        if self._waited_for == NOW:
            # It does.
            return
        ring = self._ring
        aside = ring.waiting and not ring.full
        if self._timers.next < self._waited_for or aside or lib.cm_anyone(ring) or self._ending():
            self._waited_for = NOW
            self._come_round()

    def in_progress(self) -> str:
        """What runs now, for people; empty if nothing does that is waited for."""
        return ", ".join(filter(None, (self.concurrency.in_progress(), self.grants.unreachable.in_progress())))

    def begin_drain(self) -> None:
        """Takes no more calls, and nobody who knocks."""
        self._begin_drain()

    def drained(self, *, patient: bool) -> bool:
        """Whether nothing is left to do; ends the channels of which that is so.

        Args:
            patient: calls that run are waited for, however long that takes.
        """
        if not self._drained():
            return False
        if not self.in_progress() or self._epoll.number < 0 or self._stop_at is None:
            return True
        # Nobody wants their answers any more; but they have the same time to end.
        if time.monotonic_ns() >= self._stop_at:
            return not patient
        if self._stop_at < self._timers.next:
            self._timers.at(self._stop_at, nothing)
        return False
