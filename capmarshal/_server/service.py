"""Who serves an entrypoint, and how that ends: the one place that knows what state it is in.

    idle ---- serve(), start() ----> served ---- Ctrl-C, an exit of a signal handler ----> idle
      |                                |
    close()                          close(), leave(): told to end, and waited for
      v                                v
    closed <---- whoever notices ---- ending

Serving is a session, of the thread that called serve() or of one that start() made.  ``closed`` is set first and
never taken back; whoever then finds no session lets go of the objects and the sockets, which is safe to do twice.

A signal handler may close at any instruction of all this, and of whatever else its thread does.  So nothing here waits
while the thread is within a call, is starting the serving thread, or holds a lock that serving needs: it could wait
for itself.  And no lock is held across anything that another thread could have to wait for.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from typing import TYPE_CHECKING

from capmarshal._capabilities.space import space
from capmarshal._descriptors import private
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import Closed, KernelError, NotConfined
from capmarshal._kernel.native import FOREVER
from capmarshal._server.escapes import BySignal, everything, nothing
from capmarshal._server.letting_go import LettingGo
from capmarshal._server.session import LOOP_PATIENCE, Session, owned
from capmarshal._server.starting import join, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.door import Door
    from capmarshal._server.calls import Calls
    from capmarshal._server.journal import Journal
    from capmarshal._server.listener import Listener
    from capmarshal._server.loop import Server
    from capmarshal._server.objects import Objects


# Seconds that a thread is tried to be had where one was before, and between two tries.
_BEGINNING, _PAUSE = 1.0, 0.001


class Service:
    """Has an entrypoint served, and ended.

    Args:
        label: of the entrypoint.
        door: of it, which the capability space knows as home.
        objects: that it manages.
        calls: runs theirs.
        server: that waits for them.
        journal: where it is written what does not end.

    Attributes:
        grants: of the entrypoint.
        signal_handlers: likewise.
        closed: it ends, or has ended, or this process is a child of the one that made it.
    """

    # What to write instead, where it is served already.
    _instead = ""

    def __init__(
        self, label: str, door: Door, objects: Objects, calls: Calls, server: Server, journal: Journal
    ) -> None:
        self.closed = False
        self._forked = False
        self._label = label
        self._door = door
        self._objects = objects
        self._calls = calls
        self._server = server
        self.grants = server.grants
        self.signal_handlers = server.signal_handlers
        self._journal = journal
        self._letting_go = LettingGo(objects, server)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._session: Session | None = None
        # The serving thread that start() made, and the one that is in start().
        self._thread: threading.Thread | None = None
        self._starter: int | None = None

    def in_child(self) -> None:
        """Ends in a forked child, where all of it is the parent's, and other threads do not exist."""
        self._forked, self.closed = self._forked or not self.closed, True
        self._letting_go.in_child()
        self._server.in_child()
        # Whatever a method raises: the parent serves on and answers.
        self._calls.ends_service = everything
        self._objects.forget_threads()
        self._begin_anew()

    def check_open(self) -> None:
        """Refuses to go on where nobody serves any more.

        Raises:
            Closed: so it is; says why.
        """
        if self._forked:
            raise Closed(
                f"the entrypoint {self._label!r} is its parent's: this process is a fork of the one that made it, and "
                "has to make its own"
            )
        if self.closed:
            raise Closed(f"the entrypoint {self._label!r} is closed")

    def listen(self, listener: Listener) -> None:
        """Hands capabilities over to whoever connects to a socket; takes it, also if this fails.

        Raises:
            Closed: nobody serves any more.
        """
        if not self._server.listen(listener):
            listener.close()
            self.check_open()

    # Serving.

    def _claim(self, session: Session) -> None:
        """Makes it the session.

        Raises:
            Closed: nobody serves any more.
            RuntimeError: somebody does.
        """
        with private.lock:
            if self._session is not None and self._session.active:
                raise RuntimeError(f"the entrypoint {self._label!r} is being served already{self._instead}")
            self._session = session
        self.check_open()

    def _end(self, session: Session) -> None:
        session.over = True
        # After that, and so does whoever closes: one of the two sees the other.
        if self.closed:
            self._letting_go.now()

    def serve(self) -> None:
        """Serves in the calling thread.

        Raises:
            Closed, RuntimeError: it is closed, or served already.
            KeyboardInterrupt, SystemExit: in the main thread, brought by a signal.
        """
        self.check_open()
        session = Session(threading.get_ident())
        with session.lock:
            try:
                self._claim(session)
                in_main_thread = threading.current_thread() is threading.main_thread()
                self._calls.ends_service = BySignal() if in_main_thread else nothing
                self._server.run()
            finally:
                if self._session is session:
                    self._end(session)

    def start(self) -> None:
        """Serves in a thread of its own, which does not keep the entrypoint alive: one that is forgotten is closed.

        Raises:
            Closed, RuntimeError: it is closed or served already, or threads are not what they were.
            KernelError: no thread can be had; it may be tried again.
        """
        _refuse_greenlets()
        self.check_open()
        session = Session(None)
        thread = self._thread_for(self._serve_in_thread, session)
        session.lock.acquire()
        self._starter = threading.get_ident()
        try:
            self._claim(session)
            self._thread = thread
            start(thread, self._label)
        except BaseException:
            # Before it is looked whether the thread has begun, which looks at this after that: one sees the other.
            session.given_up = True
            if thread.ident is not None:
                self.close_at_once()
            elif self._session is session:
                self._thread = None
                self._end(session)
            raise
        finally:
            self._starter = None

    def _thread_for(self, serve: Callable[[Session], None], session: Session) -> threading.Thread:
        return threading.Thread(target=serve, args=(session,), name=f"capmarshal {self._label}", daemon=True)

    def _serve_in_thread(self, session: Session) -> None:
        session.thread = threading.get_ident()
        try:
            while not self.closed and not session.given_up:
                try:
                    self._server.run()
                    if self._hand_over(session):
                        return
                except Exception as error:  # noqa: BLE001 - it is logged, and there is nobody to hand it to
                    # Whatever it was, it would come again: nobody will serve, and clients must not wait for that.
                    self._journal.critical(None, "ended", "the serving thread ended", exc_info=error)
                    self.close_at_once()
                except BaseException as error:
                    # Meant for the thread of a forked child; else another thread has raised it in this one.
                    if self.closed:
                        raise
                    self._journal.error(None, "thrown", "thrown into the serving thread, which goes on", exc_info=error)
        finally:
            if session.paused is None:
                self._end(session)
                if session.lock.locked():
                    session.lock.release()

    def _serve_on(self, session: Session) -> None:
        with private.lock:
            # One at most, whatever has kept the one who started it from knowing that it has begun.
            goes_on, session.paused = session.paused is not None, None
            if goes_on:
                # Another one may have been started since.
                self._thread = threading.current_thread()
        if goes_on:
            self._serve_in_thread(session)

    # Pausing, for what is done to a process that has one thread.

    def _hand_over(self, session: Session) -> bool:
        """Whether the serving thread is to end, and another one to go on."""
        with private.lock:
            if self._server.paused:
                session.paused = threading.current_thread()
            return session.paused is not None

    @property
    def doing(self) -> str:
        """What it does, for people."""
        return f"the entrypoint {self._label!r} runs {self._objects.in_progress() or 'its loop'}"

    @property
    def thread(self) -> threading.Thread | None:
        """The thread of its own that there is; None where that has ended, or somebody else's serves."""
        thread = self._thread
        return thread if thread is not None and thread.is_alive() else None

    def check_may_pause(self) -> None:
        """Refuses what would wait for itself.

        Raises:
            NotConfined: a signal handler has interrupted what it would wait for.
        """
        if not self._may_wait(self._session):
            words = f"by a signal handler that interrupts what the entrypoint {self._label!r} needs"
            raise NotConfined(errno.EBUSY, f"this process cannot be confined {words}")

    def pause(self, deadline: int) -> bool:
        """Has the thread of its own end between two calls: clients wait until :meth:`resume`, and notice nothing else.

        Where :meth:`check_may_pause` lets it.

        Args:
            deadline: how long to wait for the call in progress.

        Returns:
            Whether it has ended by then.  Whoever calls this has it go on in either case, and whatever is raised.
        """
        # A signal handler that closes it would wait for itself.
        self._starter = threading.get_ident()
        self._server.pause()
        join(self._thread, deadline)
        return self.thread is None

    def resume(self) -> None:
        """Takes :meth:`pause` back; does nothing where it is served.

        Raises:
            KernelError: no thread can be had; it is closed.
        """
        session, me = self._session, threading.get_ident()
        with private.lock:
            self._server.unpause()
            paused = session.paused if session is not None else None
        try:
            if session is not None and paused is not None:
                # Not the one that goes on: it may have been started, and have nothing taken yet, when Ctrl-C came.
                join(paused, FOREVER)
                self._go_on(session)
        finally:
            if self._starter == me:
                self._starter = None

    def _go_on(self, session: Session) -> None:
        give_up = _deadline.ahead(_BEGINNING)
        while True:
            thread = self._thread_for(self._serve_on, session)
            with private.lock:
                if session.paused is None:
                    return
                self._thread = thread
            try:
                start(thread, self._label)
            except KernelError:
                # Those that have just ended may be counted still.
                if time.monotonic_ns() < give_up:
                    time.sleep(_PAUSE)
                    continue
                self._give_up(session)
                raise
            return

    def _give_up(self, session: Session) -> None:
        """Ends what has no thread any more; in this order, for Ctrl-C may have it all done again."""
        self._begin_end(time.monotonic_ns())
        self._end(session)
        with private.lock:
            ours, session.paused = session.paused is not None, None
        # One that has begun late does that itself.
        if ours:
            session.lock.release()

    # Ending.

    def _may_wait(self, session: Session | None) -> bool:
        """Whether this thread can wait for the service to end: not in a call, nor where it would wait for itself."""
        me = threading.get_ident()
        within = session is not None and session.active and session.thread == me
        locks = (private.lock, self._objects.lock, self._letting_go.lock)
        return not (within or self._starter == me or any(owned(lock) for lock in locks))

    def _begin_end(self, deadline: int) -> bool:
        """Takes no more calls, and has answers sent until the deadline; False if that was begun before."""
        first, self.closed = not self.closed, True
        with private.lock:
            space.remove_home(self._door.key)
        self._server.stop(deadline)
        return first

    def close(self, deadline: int, send_until: int) -> bool:
        """Ends service when the call in progress is answered; does not wait for that the second time.

        Args:
            deadline: how long to wait for that.
            send_until: how long answers may take that are on their way.

        Returns:
            False if a call is still in progress at the deadline; service ends when it does.
        """
        first = self._begin_end(send_until)
        session = self._session
        # The second time it may be a signal handler that interrupts the first, whose steps must not be taken twice.
        if not first or not self._may_wait(session):
            self._release_if_over(session)
            return True
        if session is not None and not session.wait(deadline):
            return False
        join(self._thread, deadline)
        self._letting_go.now()
        return True

    def leave(self, seconds: float) -> None:
        """Ends service as :meth:`close` does, but within a bound: then clients find it gone whatever a call still does.

        Args:
            seconds: the bound.
        """
        began = time.monotonic_ns()
        deadline = _deadline.after(seconds)
        self._begin_end(deadline)
        session = self._session
        if not self._may_wait(session):
            self._release_if_over(session)
            return
        if session is not None and session.active:
            try:
                left = not session.wait(deadline) and not session.ends_by_itself(self._objects.in_progress)
            except BaseException:
                # Ctrl-C: no more is waited for.
                self._server.close()
                raise
            if left:
                self._journal.error(
                    None,
                    "left",
                    "%s has not ended in %.1f s and is left behind: its caller gets no answer",
                    self._objects.in_progress() or "the loop",
                    (time.monotonic_ns() - began) / 1e9,
                )
                self._server.close()
                return
        # Nothing is left to do there but to end.
        join(self._thread, _deadline.ahead(LOOP_PATIENCE))
        self._letting_go.now()

    def close_at_once(self) -> None:
        """Ends service without waiting: now, or when the call in progress ends."""
        self._begin_end(time.monotonic_ns())
        self._release_if_over(self._session)

    def abandon(self, runs: Callable[[], bool]) -> None:
        """Ends service as :meth:`close_at_once`, and clients find it gone whatever a call still does.

        Args:
            runs: whether a call does.
        """
        self.close_at_once()
        self._server.abandon(runs)

    def _release_if_over(self, session: Session | None) -> None:
        """Lets go of everything where nobody serves, unless another thread is about to: that one is not waited for."""
        if session is None or not session.active:
            self._letting_go.try_now()

    @property
    def served(self) -> bool:
        """Whether somebody serves it."""
        session = self._session
        return session is not None and session.active

    @property
    def released(self) -> bool:
        """Whether nothing is left to let go of."""
        return self._letting_go.done


def _refuse_greenlets() -> None:
    """Refuses to start a thread where there are none.

    Raises:
        RuntimeError: gevent has replaced them.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise RuntimeError(
            "gevent has made threads greenlets (monkey.patch_all(), patch_thread()): an entrypoint's thread waits in "
            "the kernel, and every greenlet would wait with it; serve in a process whose threads are not patched"
        )
