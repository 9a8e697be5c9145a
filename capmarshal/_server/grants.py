"""The grants of one server: which are in force, and how each ends: revoked, unreachable, or with the server."""

from __future__ import annotations

import collections
import os
import weakref
from typing import TYPE_CHECKING

from capmarshal._capabilities.space import space
from capmarshal._descriptors import private
from capmarshal._kernel.native import lib
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol import epitaph
from capmarshal._protocol.states import SPARE, UNBEGUN
from capmarshal._protocol.wire import BADGE_SIZE, combined
from capmarshal._server.grant import Grant, end_object, end_passed_on
from capmarshal._server.grant_doors import GrantDoors
from capmarshal._server.grants_counted import GrantsCounted
from capmarshal._server.hanging_up import shut
from capmarshal._server.new_door import make_door
from capmarshal._server.objects import make_badge
from capmarshal._server.streams import Streaming, end_failed, end_of
from capmarshal._server.timers import Again
from capmarshal._server.unreachable import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.capability import Capability
    from capmarshal._capabilities.door import Door
    from capmarshal._descriptors.private import Private
    from capmarshal._server.clients import Peer
    from capmarshal._server.deep import Deep
    from capmarshal._server.dispatch import Dispatcher
    from capmarshal._server.endings import Endings
    from capmarshal._server.journal import Journal
    from capmarshal._server.knocks import Knocks
    from capmarshal._server.objects import Objects
    from capmarshal._server.shares import Shares
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers
    from capmarshal._typed.interface import Interface

# Nanoseconds between two looks at channels of revoked grants whose calls were in progress then.
_LOOK = 1_000_000_000


class Grants:
    """The grants of one server.

    Args:
        knocks: taken at their doors.
        slots: of the server.
        timers: of its loop.
        endings: of channels.
        dispatcher: runs what is told that nobody can reach an object any more.
        objects: that they lead to.
        journal: of the entrypoint.
        shares: what may go to whom.
        ending: whether the server is to end.
        wake_up: has the loop come round.

    Attributes:
        counted: how many of them processes have.
        unreachable: notices when nobody can call an object by one any more.
    """

    def __init__(
        self,
        knocks: Knocks,
        slots: Slots,
        timers: Timers,
        endings: Endings,
        dispatcher: Dispatcher,
        objects: Objects,
        journal: Journal,
        shares: Shares,
        *,
        ending: Callable[[], bool],
        wake_up: Callable[[], None],
    ) -> None:
        self._endings = endings
        self._dispatcher = dispatcher
        self._objects = objects
        self._journal = journal
        self._ending = ending
        self._wake_up = wake_up
        self._closed = False
        # Those that are in force, by the key of their door.
        self._in_force: dict[int, Grant] = {}
        # The same by their objects: there may be very many, each with one.
        self._by_target: dict[int, dict[int, Grant]] = {}
        # Those that this process holds, of grants that are over, too.
        self._doors: weakref.WeakSet[Door] = weakref.WeakSet()
        self._new: collections.deque[Grant] = collections.deque()
        # Those that were taken back, and have channels, or an end that is not closed yet.
        self._revoked: dict[Grant, None] = {}
        # Streams of those, which are to end.
        self._cut_short: dict[Grant, Streaming] = {}
        self.counted = GrantsCounted(shares)
        self._looking = Again(timers, _LOOK, self._end_revoked)
        self.unreachable = Unreachable(
            timers,
            dispatcher,
            journal,
            is_over=weakly(self._is_over, otherwise=True),
            end=weakly(self._end_but_for_telling, None),
            forget=weakly(self._forget_one, None),
        )
        self._own_doors = GrantDoors(knocks, slots, timers, ending, weakly(self.unreachable.door_shut, None))
        endings.before(self.unreachable.channel_ends)

    def make(
        self,
        label: str,
        target: Interface,
        only: frozenset[bytes] | None,
        unreachable: Callable[[Interface], object] | None,
        holder: Peer | None = None,
        deep: Deep | None = None,
        through: Grant | None = None,
    ) -> Capability | None:
        """One more, from any thread; None where nobody serves any more.

        Args:
            label: what the server calls the recipient.
            target: the object.
            only: the names of the methods that can be called; None: all.
            unreachable: as :class:`Grant` has it.
            holder: whom it is the result of a call of, where that is counted.
            deep: as :class:`Grant` has it.
            through: the grant with which it is revoked: as :class:`Grant` has it.

        Raises:
            TableFull: no room for the two ends of its door.
        """
        grant = Grant(label, target, os.urandom(BADGE_SIZE), make_badge(), unreachable, deep)
        grant.through = through
        # Whatever Ctrl-C keeps from being returned has never been.
        try:
            grant.end, door = make_door(label, self._dispatcher, grant.secret, grants=label != self._journal.label)
            grant.key = door.key
            self._doors.add(door)
            self._objects.enter(grant.kept_under, target, only)
            if not self._add(grant, holder):
                self.discard(grant)
                return None
            if through is not None and through.reason is not None:
                # While the call ran that has begun it.
                self.revoke(grant, through.reason, silent=through.silent)
            return space.capability(door, grant.badge)
        except BaseException:
            self.discard(grant)
            raise

    def _add(self, grant: Grant, holder: Peer | None) -> bool:
        """Takes one more; False, and the caller still owns it, where nobody serves any more."""
        with private.lock:
            if not self._closed:
                self.counted.add(grant, holder)
                if grant.through is not None:
                    grant.through.streams.add(grant)
                self._by_target.setdefault(id(grant.target), {})[grant.key] = grant
                self._in_force[grant.key] = grant
                self._new.append(grant)
        if not self._closed:
            self._wake_up()
        return not self._closed

    def dissolve(self, target: Interface, reason: str) -> None:
        """Ends what leads to an object, from any thread."""
        for grant in self.of(target):
            self.revoke(grant, reason)
        with private.lock:
            in_force = tuple(self._in_force.values())
        for grant in in_force:
            # A lock for each: what Ctrl-C raises at the jump back of a loop is in no `with` under CPython 3.12, 3.13.
            with private.lock:
                end_object(grant, target, self._objects)

    def opened(self, door: Door) -> bool:
        """Whether a door that this process holds leads, or has led, to an object by a grant: it hangs up later."""
        return door in self._doors

    def at(self, key: int) -> Grant | None:
        """The grant that is in force whose door has this key, if there is one."""
        return self._in_force.get(key)

    def of(self, target: Interface) -> list[Grant]:
        """Those in force that lead to an object."""
        with private.lock:
            return list(self._by_target.get(id(target), {}).values())

    def settle(self) -> None:
        """Opens the doors of new ones, and ends what was revoked, in the loop's thread."""
        while self._new:
            # One that was revoked meanwhile may be closed by now.
            if self._in_force.get(self._new[0].key) is self._new[0]:
                self._own_doors.open(self._new[0])
            # Last: what Ctrl-C interrupts is done again.
            self._new.popleft()
        if self._end_revoked():
            self._looking.begin()

    def revoke(self, grant: Grant, reason: str, *, silent: bool = False) -> None:
        """Takes a grant back, from any thread; does nothing where it is over.

        Args:
            grant: which.
            reason: for those who held it.
            silent: they are told nothing, and find its door as one whose server has gone.
        """
        with private.lock:
            if self._in_force.get(grant.key) is not grant:
                return
            grant.reason, grant.silent = reason, silent
            self._revoked[grant] = None
            # From here on the loop does what Ctrl-C may keep from being done here, and waits for the lock before.
            self._wake_up()
            self._take_back(grant)

    def _take_back(self, grant: Grant) -> None:
        """Has all who hold a revoked grant be told; does nothing the second time, unless Ctrl-C has ended the first."""
        with private.lock:
            if self._in_force.get(grant.key) is not grant:
                return
            if grant.end.number >= 0:
                if not grant.silent:
                    # The only one there: nobody else sends to those who hold the door.
                    record = epitaph.pack(grant.reason or "")
                    lib.cm_send_record(grant.end.number, record, len(record), (), 0)
                shut([grant.end])
            target: object = grant.target
            if isinstance(target, Streaming):
                # In the loop's thread: it may iterate now.
                self._cut_short[grant] = target
            for stream in tuple(grant.streams):
                self.revoke(stream, grant.reason or "", silent=grant.silent)
            end_passed_on(grant, self._objects)
            self._leave(grant)

    def _leave(self, grant: Grant) -> None:
        """Ends that a grant is in force; the caller holds the lock."""
        space.remove_home(grant.key)
        self._take_out(grant)
        self._forget(grant)

    def _take_out(self, grant: Grant) -> None:
        """Takes out the objects that it leads to; the caller holds the lock."""
        self._objects.remove(grant.kept_under)
        for badge in grant.deep.badges() if grant.deep is not None else ():
            self._objects.remove(combined(badge, grant.secret))

    def _forget(self, grant: Grant) -> None:
        of_target = self._by_target.get(id(grant.target), {})
        of_target.pop(grant.key, None)
        if not of_target:
            self._by_target.pop(id(grant.target), None)
        # Whatever keeps the grant: whoever has knocked last, or a channel that is still ending.
        grant.target = grant.unreachable = None
        if grant.deep is not None:
            for key in grant.deep.others:
                if (other := self._in_force.get(key)) is not None:
                    other.passed_on.discard(grant)
            grant.deep.clear()
        grant.passed_on.clear()
        if grant.through is not None:
            grant.through.streams.discard(grant)
        self.counted.remove(grant)
        # Last: as long as it is in force, it can be ended again.
        self._in_force.pop(grant.key, None)

    def discard(self, grant: Grant) -> None:
        """Ends a grant that nobody has been given, however far it got; from any thread."""
        with private.lock:
            if grant.key in self._in_force:
                # The loop may have opened its door.
                self.revoke(grant, "")
                return
            self._leave(grant)
            grant.end.close()

    def _end_revoked(self) -> bool:
        """Ends the channels of revoked grants, but those whose call is in progress; whether there are such."""
        for grant in tuple(self._revoked):
            self._take_back(grant)
            self._own_doors.close(grant)
            if grant in self._cut_short:
                self._end_stream(self._cut_short[grant], self._cut_short[grant].revoke)
                # Last: what Ctrl-C interrupts is done again.
                self._cut_short.pop(grant, None)
            for channel in tuple(grant.channels):
                # A call that has not come whole is told as one that begins now.
                if channel.state in SPARE or channel.state in UNBEGUN:
                    self._endings.give_up(channel)
            if not grant.channels:
                self._revoked.pop(grant, None)
        return bool(self._revoked)

    def _is_over(self, grant: Grant) -> bool:
        """Whether nothing is to be told of a grant that nobody can reach."""
        with private.lock:
            return self._ending() or self._in_force.get(grant.key) is not grant or grant.reason is not None

    def _end_but_for_telling(self, grant: Grant) -> None:
        """Ends a grant that nobody can reach; it is in force as long as that is not told."""
        space.remove_home(grant.key)
        with private.lock:
            self._take_out(grant)
        self._own_doors.close(grant)

    def _forget_one(self, grant: Grant) -> None:
        with private.lock:
            self._forget(grant)

    def ends(self) -> list[Private]:
        """The server's ends of all doors that are open."""
        with private.lock:
            return [grant.end for grant in (*self._in_force.values(), *self._revoked)]

    def close(self) -> None:
        """Ends all of them, in the loop's thread or where nobody serves."""
        with private.lock:
            self._closed = True
            grants = (*self._in_force.values(), *self._revoked)
            for grant in grants:
                space.remove_home(grant.key)
            self._in_force.clear()
            self._by_target.clear()
            self._revoked.clear()
            self.counted.clear()
        self._new.clear()
        for grant in grants:
            self._own_doors.close(grant)
            grant.streams.clear()
            target: object = grant.target or self._cut_short.pop(grant, None)
            if isinstance(target, Streaming):
                self._end_stream(target, target.end)

    def _end_stream(self, stream: Streaming, end: Callable[[], None]) -> None:
        """Ends what iterates, as nobody pulls any more."""
        try:
            self._dispatcher.run_beside(end_of(stream), end)
        except Exception as error:  # noqa: BLE001 - it is logged, and the others are ended, too
            end_failed(self._journal, stream, error)

    def in_child(self) -> None:
        """Has none in a forked child."""
        self._closed = True
        self._in_force.clear()
        self._by_target.clear()
        self._revoked.clear()
        self._cut_short.clear()
        self.counted.clear()
        self._own_doors.in_child()
        self._new.clear()
        self.unreachable.in_child()
