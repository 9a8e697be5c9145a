"""The server's loop: one thread, one epoll set, turn after turn, until it is told to end.

It trusts no flag of a socket, for the client made both ends of the channel and may have kept a copy: nothing here
waits for a particular client.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from capmarshal._descriptors import inbox, private, reaper
from capmarshal._kernel.native import FOREVER, ffi, lib
from capmarshal._kernel.polling import poll_nanoseconds
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol.states import ANSWERING, State
from capmarshal._server.answers import Answers
from capmarshal._server.arrivals import Arrivals
from capmarshal._server.channels import Channels
from capmarshal._server.closings import Closings
from capmarshal._server.doorkeeper import Doorkeeper
from capmarshal._server.endings import Endings
from capmarshal._server.grants import Grants
from capmarshal._server.hanging_up import shut
from capmarshal._server.knocks import Knocks
from capmarshal._server.leaving import Leaving
from capmarshal._server.listening import Listening
from capmarshal._server.os_signals import SignalWatch
from capmarshal._server.peers import Peers
from capmarshal._server.records import Records
from capmarshal._server.result_grants import ResultGrants
from capmarshal._server.served_by import ServedBy
from capmarshal._server.shares import Shares
from capmarshal._server.signal_handlers import SignalHandlers
from capmarshal._server.timers import Timers
from capmarshal._server.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.dispatch import Dispatcher
    from capmarshal._server.journal import Journal
    from capmarshal._server.limits import Limits
    from capmarshal._server.listener import Listener
    from capmarshal._server.objects import Objects
    from capmarshal._typed.colour import Colour


class Server:
    """Serves one door.

    Args:
        door: the server's end, taken.
        dispatcher: what runs the calls.
        objects: that can be called.
        journal: of the entrypoint.
        colour: of the interfaces that are served.
        max_bytes: of a call's or a result's record.
        max_descriptors: of a call or a result.
        limits: what its clients may cost it.

    Attributes:
        grants: whose doors it serves besides.
        signal_handlers: likewise.

    Raises:
        TableFull, KernelError: the caller still owns ``door``.
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
    ) -> None:
        self._calls = dispatcher.calls
        self._journal = journal
        self._turn = turn = ffi.new("struct cm_turn *")
        turn.poll = poll_nanoseconds
        # Until when answers may be sent, once it is told to end.
        self._stop_at: int | None = None
        # Held by whoever looks whether the server is closed when a call returns, and by whoever closes it meanwhile.
        self._gate = threading.Lock()
        self._running = self._abandoned = False
        # Told to pause; and paused, with nothing half done.
        self._pausing = self._paused = False
        shares = Shares(limits, max_bytes, max_descriptors)
        received = inbox.Inbox(within=turn)
        self._timers = timers = Timers()
        self._channels = channels = Channels(turn, shares, timers)
        self._closings = closings = Closings(turn, channels, timers, weakly(self._wake_up, None))
        self._endings = endings = Endings(channels, closings, journal, timers)
        self._answers = answers = Answers(
            channels,
            closings,
            timers,
            drop=endings.drop,
            warn=journal.warning,
        )
        arrivals = Arrivals(channels, closings, timers, endings.give_up)
        endings.before(arrivals.end)
        endings.before(answers.abandon)
        self._records = records = Records(
            turn,
            received,
            channels,
            arrivals,
            answers,
            closings,
            # Its calls know how many may run, and that knows these; what listens keeps it.
            weakref.proxy(dispatcher),
            endings=endings,
            returned=weakly(self._returned, otherwise=False),
        )
        self._leaving = leaving = Leaving(turn, channels)
        self._turns = Turns(
            turn,
            received,
            channels,
            records,
            answers,
            endings,
            timers,
            dispatcher.calls,
            leaving,
        )
        self._epoll = private.make_epoll_set()
        peers = Peers(shares, self._epoll)
        self._signals = SignalWatch(channels.slots, weakly(self._ends_service, otherwise=False))
        ending = weakly(self._ending, otherwise=True)
        self._knocks = knocks = Knocks(peers, channels, closings, endings, journal)
        self._doorkeeper = Doorkeeper(door, knocks, channels.slots, timers, ending, weakly(self._door_shut, None))
        self.grants = Grants(
            knocks,
            channels.slots,
            timers,
            endings,
            dispatcher,
            objects,
            journal,
            shares,
            ending=ending,
            wake_up=weakly(self._wake_up, None),
        )
        self._result_grants = result_grants = ResultGrants(self.grants, dispatcher, objects, journal, colour)
        dispatcher.calls.serve_for(
            ServedBy(
                channel_of=channels.get,
                slot=lambda: turn.slot,
                grant_at=weakly(self.grants.at, None),
                hand_out=weakly(result_grants.hand_out, None),
                hand_under=weakly(result_grants.hand_under, None),
                shares=shares,
            )
        )
        self.signal_handlers = SignalHandlers(
            channels.slots,
            timers,
            dispatcher,
            journal,
            ending=ending,
            wake_up=weakly(self._wake_up, None),
        )
        self._listening = Listening(
            channels.slots, timers, peers, closings, shares, dispatcher, journal, result_grants, ending
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._epoll.close)
            self._wake = private.make_event()
            undo.callback(self._wake.close)
            turn.epoll, turn.probe = self._epoll.number, self._wake.number
            self._doorkeeper.watch.begin()
            channels.slots.watch_own(self._wake, weakly(self._woken, None))
            undo.pop_all()

    def _ends_service(self, error: BaseException) -> bool:
        return self._calls.ends_service(error)

    def _ending(self) -> bool:
        return self._stop_at is not None

    def _door_shut(self) -> None:
        # By the server, where that found it running; else some holder of the client end has (shutdown(2)).
        if not self._ending():
            self._journal.error(None, "shut", "the door was shut by one of its holders; open channels go on")

    def stop(self, deadline: int) -> None:
        """Has :meth:`run` return: when the call in progress is answered, and the answers on their way are sent.

        From any thread, and from a signal handler.

        Args:
            deadline: until when it may take to send them.
        """
        self._stop_at = deadline
        # Not before: it is looked at then.
        self._turns.told = True
        self._listening.remove_files()
        self._wake_up()

    def pause(self) -> None:
        """Has :meth:`run` return when the call in progress is answered, and be run again, perhaps by another thread."""
        self._pausing = self._turns.told = True
        self._wake_up()

    def unpause(self) -> None:
        """Takes back what :meth:`pause` has said."""
        self._pausing = self._turns.told = False
        if self._stop_at is not None:
            # From a signal handler, or another thread, just now.
            self._turns.told = True

    @property
    def paused(self) -> bool:
        """Whether :meth:`run` has returned for that alone."""
        return self._pausing and self._paused

    def listen(self, listener: Listener) -> bool:
        """Takes a socket to listen at, from any thread; False, and the caller still owns it, if it is closed."""
        if not self._listening.add(listener):
            return False
        self._wake_up()
        return True

    def _wake_up(self) -> None:
        with private.lock:
            if self._wake.number >= 0:
                os.eventfd_write(self._wake.number, 1)

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake.number)
        self._closings.settle()
        self._listening.begin()
        self.grants.settle()
        self.signal_handlers.settle()

    def close(self) -> None:
        """Ends all channels and the door, at once.

        While another thread still runs a call, the sockets are shut down, so that clients see the end; they are closed,
        and the call's answer is dropped, when it returns.
        """
        with self._gate:
            if self._running:
                self._abandon()
                return
        self._close()

    def abandon(self, runs: Callable[[], bool]) -> None:
        """Has clients see the end at once where a call runs, as :meth:`close`; once it was told to end, by a thread.

        Where none runs nothing is done: the end is near.

        Args:
            runs: whether a call does, whose thread comes by here before it closes anything.
        """
        with self._gate:
            if self._running and runs():
                self._abandon()

    def _abandon(self) -> None:
        """Shuts everything down; the caller holds the gate."""
        self._abandoned = True
        self._listening.hang_up()
        # The thread that runs the call closes them, and waits for this when it comes back.
        channels = [channel.far for channel in self._channels.all()]
        shut([*channels, self._doorkeeper.door, *self.grants.ends(), *self.signal_handlers.ends()])

    def _close(self) -> None:
        for channel in self._channels.all():
            self._endings.forget(channel)
        self._channels.unread.close_ended()
        self._listening.close()
        self.grants.close()
        self.signal_handlers.close()
        self._channels.hanging_up.now()
        with private.lock:
            self._wake.close()
        self._epoll.close()
        self._leaving.end()
        # Its queue may hold what takes long to close.
        reaper.close([self._doorkeeper.door])
        self._timers.end()

    def _returned(self) -> bool:
        """Whether a call that returns finds its server as it left it, and not closed."""
        if self._stop_at is None:
            return True
        with self._gate:
            return not self._abandoned

    def _come_by_gate(self) -> None:
        """Waits for whoever abandons a call that has just ended: what he shuts down is closed after that."""
        self._returned()

    def in_child(self) -> None:
        """In a forked child: the numbers in C's memory are nobody's any more, or somebody else's."""
        turn = self._turn
        turn.epoll, turn.probe, turn.taken = -1, -1, 0
        self._turns.told = True
        lib.cm_ring_forget(ffi.addressof(turn, "ring"))
        self._gate = threading.Lock()
        self._listening.in_child()
        self.grants.in_child()
        self.signal_handlers.in_child()
        self._signals.in_child()

    def run(self) -> None:
        """Serves until it is stopped, or paused, or until this process turns out to be a forked child.

        Raises:
            KeyboardInterrupt, SystemExit: raised in a method or a signal handler; it may be run again.
        """
        self._running, self._paused = True, False
        try:
            self._signals.begin()
            self._calls.serve(self._take_turns)
        finally:
            try:
                self._signals.end()
            finally:
                # Again, where a signal handler has raised something meanwhile: what wakes the loop is not to stay open.
                try:
                    self._signals.end()
                finally:
                    self._ran()

    def _ran(self) -> None:
        self._come_by_gate()
        if self._paused:
            # Between two turns: each channel is as it should be.
            pass
        elif self._epoll.number >= 0:
            self._turns.tidy()
            self._knocks.tidy()
            self._listening.tidy()
        else:
            # In a forked child.
            self._leaving.close_here()
        with self._gate:
            self._running = False
        if self._abandoned:
            self._close()

    def _take_turns(self) -> None:
        take, timers = self._turns.take, self._timers
        # Of those that were new when Ctrl-C came, nobody would tell again.
        self._listening.begin()
        self.grants.settle()
        self.signal_handlers.settle()
        # Not `while CONDITION`: what Ctrl-C raises at the jump back is in no `try` under CPython 3.13.0.
        while True:
            if self._stop_at is not None or self._pausing or self._epoll.number < 0:
                break
            take()
            if timers.next is not FOREVER and time.monotonic_ns() >= timers.next:
                self._run_timers()
        if self._epoll.number < 0:
            return
        if self._stop_at is None:
            self._turns.deliver_reply()
            self._paused = True
        else:
            self._drain()

    def _run_timers(self) -> None:
        self._come_by_gate()
        try:
            self._timers.run()
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the service; the others come next time
            self._endings.fault(None, error)

    def _drain(self) -> None:
        self._begin_drain()
        while not self._drained():
            self._turns.take()
            self._run_timers()

    def _begin_drain(self) -> None:
        """Sends the answers that are on their way; everybody else finds the server gone."""
        self._come_by_gate()
        self._turns.deliver_reply()
        # First: what iterates may take its time to end.
        self._end_idle()
        self._channels.hanging_up.now()
        self._doorkeeper.watch.end()
        self._listening.close()
        self.grants.close()
        self.signal_handlers.close()
        reaper.close([self._doorkeeper.door])

    def _drained(self) -> bool:
        """Whether all of them are sent, or time is up; ends the channels whose are."""
        if self._epoll.number < 0 or self._stop_at is None or self._abandoned:
            return True
        self._end_idle()
        if not len(self._channels) or time.monotonic_ns() >= self._stop_at:
            return True
        if self._stop_at < self._timers.next:
            # Nothing but the time may be what comes.
            self._timers.at(self._stop_at, nothing)
        return False

    def _end_idle(self) -> None:
        """Ends the channels on which no answer is on its way."""
        for channel in self._channels.all():
            # Whose answer is sent, and results are being closed, is done.
            if channel.state not in ANSWERING or channel.state is State.SETTLING:
                self._endings.forget(channel)


def nothing() -> None:
    """Only has the loop come round."""
