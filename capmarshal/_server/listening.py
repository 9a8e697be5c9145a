"""Listening: whoever may connect is handed one capability, and from there on all is as ever.

A connection is no channel.  The client says nothing on it, and the server one record: a capability, or why there is
none.  What stands at the other end is told by the kernel, of the process that has connected, and nobody can relay that:
the connection was made by the one call.
"""

from __future__ import annotations

import collections
import errno
import select
import weakref
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._capabilities import handover
from capmarshal._capabilities.capability import Capability
from capmarshal._capabilities.space import space
from capmarshal._descriptors import private, reaper
from capmarshal._descriptors.private import Private
from capmarshal._descriptors.socket_paths import credentials_of
from capmarshal._kernel.errors import Disconnected, Error, TooManyInFlight, error_for
from capmarshal._kernel.native import NOW, lib
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol.handover_record import Because
from capmarshal._server.caller import Caller
from capmarshal._server.handovers import Handovers
from capmarshal._server.watch import Watch
from capmarshal._typed.interface import capability

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.clients import Peer
    from capmarshal._server.closings import Closings
    from capmarshal._server.dispatch import Ask, Dispatcher
    from capmarshal._server.journal import Journal
    from capmarshal._server.listener import Listener
    from capmarshal._server.peers import Peers
    from capmarshal._server.result_grants import ResultGrants
    from capmarshal._server.shares import Shares
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers

# Nothing has come, or it has gone; all else that accept(2) says has to do with the socket, or with this process.
_NOTHING_CAME = (-errno.EAGAIN, -errno.EINTR, -errno.ECONNABORTED)


class Listening:
    """The listening sockets of one server.

    Args:
        slots: of the server.
        timers: of its loop.
        peers: who connects.
        closings: closes connections.
        shares: how much may be handed over and not taken.
        dispatcher: runs what says who gets what.
        journal: of the entrypoint.
        result_grants: counts what clients are given.
        ending: whether the server is to end.

    Attributes:
        ask: asks who gets what, where an event loop serves.
    """

    def __init__(
        self,
        slots: Slots,
        timers: Timers,
        peers: Peers,
        closings: Closings,
        shares: Shares,
        dispatcher: Dispatcher,
        journal: Journal,
        result_grants: ResultGrants,
        ending: Callable[[], bool],
    ) -> None:
        self._slots = slots
        self._timers = timers
        self._peers = peers
        self._closings = closings
        self._dispatcher = dispatcher
        self._journal = journal
        self._result_grants = result_grants
        self._ending = ending
        self._handovers = Handovers(slots, timers, closings, shares)
        self._listeners: list[Listener] = []
        self._new: collections.deque[Listener] = collections.deque()
        self._closed = False
        # The connection that was taken last, until it has another owner.
        self._accepted = Private(-1)
        self.ask: Ask | None = None

    def add(self, listener: Listener) -> bool:
        """Takes one more, from any thread; False, and the caller still owns it, where nobody serves any more."""
        ready = partial(weakly(self._come, None), weakref.ref(listener))
        listener.watch = Watch(self._slots, self._timers, self._ending, listener.socket, ready)
        with private.lock:
            if not self._closed:
                self._listeners.append(listener)
                self._new.append(listener)
                if listener.place is not None:
                    space.listening[listener.place] = weakref.ref(self._dispatcher)
            return not self._closed

    def begin(self) -> None:
        """Has connections taken by those that are new, in the loop's thread."""
        while self._new:
            self._new[0].watch.resume()
            # Last: what Ctrl-C interrupts is done again.
            self._new.popleft()

    def _come(self, known: weakref.ref[Listener]) -> None:
        """Takes one connection: others come in turns to come, and calls in between."""
        listener = known()
        if listener is None or listener.socket.number < 0:
            return
        if self._closings.keeps_out(None):
            listener.watch.pause()
            return
        try:
            result = private.accept_into(self._accepted, listener.socket)
            if result >= 0:
                self._answer(listener, self._accepted)
                self._accepted = Private(-1)
            elif result not in _NOTHING_CAME:
                why = error_for(-result, f"taking a connection at {listener.where}")
                self._journal.warning(None, "accept", "who connects has to wait: %s", why)
                listener.watch.pause()
            elif lib.cm_wait(listener.socket.number, select.POLLRDHUP, NOW) > 0:
                # Whoever holds it may do that (shutdown(2)), for all who do; and it is readable for ever.
                self._journal.error(None, "unheard", "the socket at %s was shut down", listener.where)
                listener.watch.end()
        except Exception:
            # A signal handler's, say, after which service goes on: who has connected is not to wait for an answer.
            self.tidy()
            raise

    def _answer(self, listener: Listener, connection: Private) -> None:
        """Hands a capability over to who has connected, or says why not; takes the connection."""
        caller = Caller(*credentials_of(connection.number))
        peer = self._peers.knocked(caller.pid, caller.uid, None)
        if lib.cm_wait(connection.number, select.POLLRDHUP, NOW) > 0:
            # It has gone: nobody is asked about it.
            self._closings.hang_up(peer, connection, has_connected=True)
            return
        if busy := self._handovers.refusal(peer):
            self._refuse(connection, peer, busy, Because.BUSY)
            return
        gives = listener.gives
        if isinstance(gives, Capability):
            self._give(listener, caller, connection, peer, gives)
            return
        asked = partial(gives, caller)
        if self.ask is not None:
            then = partial(self._answered, listener, caller, connection, peer)
            self._handovers.ask(connection, peer, partial(self.ask, asked, then, "for_client"))
            return
        try:
            given = self._dispatcher.run_beside(f"for_client, at {listener.where},", asked)
        except BaseException as error:
            self._failed(listener, connection, peer, error)
            if not isinstance(error, Exception) and self._dispatcher.calls.ends_service(error):
                raise
            return
        self._give(listener, caller, connection, peer, given)

    def _answered(
        self,
        listener: Listener,
        caller: Caller,
        connection: Private,
        peer: Peer,
        given: object,
        failure: BaseException | None,
    ) -> None:
        """What a client gets was asked for, and is told; it may have gone meanwhile."""
        if not self._handovers.take_back(connection, peer):
            return
        if failure is not None:
            self._failed(listener, connection, peer, failure)
        else:
            self._give(listener, caller, connection, peer, given)

    def _give(self, listener: Listener, caller: Caller, connection: Private, peer: Peer, chosen: object) -> None:
        """Hands over what was chosen, or says that the client is not let in; takes the connection."""
        if chosen is None:
            self._refuse(connection, peer, f"process {caller.pid} of user {caller.uid} is not let in")
            return
        try:
            given = chosen if isinstance(chosen, Capability) else capability(chosen)  # type: ignore[arg-type]  # checked
        except Exception as error:  # noqa: BLE001 - it is said, and logged
            self._failed(listener, connection, peer, error)
            return
        if why := self._result_grants.goes_to(given, peer):
            self._journal.warning(peer, "grants", "a client was not let in: %s", why)
            self._refuse(connection, peer, why)
            return
        try:
            handover.send(connection.number, given, 0)
        except TooManyInFlight as error:
            self._refuse(connection, peer, str(error), Because.BUSY)
        except Error as error:
            if not isinstance(error, Disconnected):
                self._journal.warning(peer, "handover", "nothing was handed over: %s", error)
            self._refuse(connection, peer, "it could not be sent")
        else:
            self._handovers.keep(connection, peer)

    def _failed(self, listener: Listener, connection: Private, peer: Peer, error: BaseException) -> None:
        """Says that it could not be chosen what a client gets; takes the connection."""
        if isinstance(error, Disconnected):
            # It may be there another time, as what stands behind this service.
            self._journal.warning(peer, "for_client", "for_client, at %s: %s", listener.where, str(error))
            why = "what the service would hand over is gone, or can't be reached now, and its log says why"
            self._refuse(connection, peer, why, Because.GONE)
            return
        self._journal.error(peer, "for_client", "for_client, at %s, failed", listener.where, exc_info=error)
        why = "the service failed when it was asked what (its for_client), and its log says why"
        self._refuse(connection, peer, why)

    def _refuse(self, connection: Private, peer: Peer, why: str, because: Because = Because.REFUSED) -> None:
        """Says why nothing is handed over, and ends the connection; takes it."""
        if connection.number < 0:
            # In a forked child.
            return
        handover.send_refusal(connection.number, why, because)
        self._closings.hang_up(peer, connection, has_connected=True)

    def tidy(self) -> None:
        """Leaves nothing half done where Ctrl-C came between two steps."""
        accepted, self._accepted = self._accepted, Private(-1)
        if accepted.number >= 0 and accepted not in self._handovers:
            reaper.close([accepted])
        self._handovers.tidy()

    def end_asked(self) -> None:
        """Ends the connections of clients about whom somebody is asked still, in the loop's thread."""
        self._handovers.end_asked()

    def remove_files(self) -> None:
        """Lets nobody else find what is listened to, from any thread."""
        for listener in tuple(self._listeners):
            self._forget_place(listener)
            listener.remove_file()

    def _forget_place(self, listener: Listener) -> None:
        """Has nobody of this process find it any more, before its file's inode may be another's."""
        place, listener.place = listener.place, None
        if place is not None:
            space.listening.pop(place, None)

    def hang_up(self) -> None:
        """Ends what is listened to, from any thread: who is not answered yet finds the service gone."""
        with private.lock:
            self._closed = True
            # What they hand over is kept no longer.
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            self._forget_place(listener)
            listener.close()

    def close(self) -> None:
        """Ends all of it, in the loop's thread or where nobody serves."""
        for listener in tuple(self._listeners):
            listener.watch.end()
        self.hang_up()
        self._new.clear()
        self._handovers.close()

    def in_child(self) -> None:
        """Has nothing in a forked child: neither sockets nor their files are its own."""
        self._closed = True
        self._listeners.clear()
        self._new.clear()
        self._handovers.in_child()
