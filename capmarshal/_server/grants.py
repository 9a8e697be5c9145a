"""The grants of one server: their doors are opened, they are taken back, and end when nobody can reach them."""

from __future__ import annotations

import collections
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Capability, Proxy, door_of
from capmarshal._capabilities.space import capability_of, space
from capmarshal._descriptors import private, reaper
from capmarshal._kernel.errors import TableFull
from capmarshal._kernel.native import lib
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol import epitaph
from capmarshal._protocol.faults import Code, Failing
from capmarshal._protocol.states import SPARE, UNBEGUN
from capmarshal._protocol.wire import BADGE_SIZE, combined
from capmarshal._server.deep import own_object
from capmarshal._server.doorkeeper import Doorkeeper
from capmarshal._server.grant import Grant
from capmarshal._server.handed_out import HandedOut
from capmarshal._server.hanging_up import shut
from capmarshal._server.new_door import make_door
from capmarshal._server.objects import make_badge
from capmarshal._server.streams import END, END_FAILED, PULLED, Streaming
from capmarshal._server.timers import Again
from capmarshal._typed.interface import check_manageable

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.door import Door
    from capmarshal._descriptors.private import Private
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.deep import Deep
    from capmarshal._server.dispatch import Ask, Asking, Dispatcher
    from capmarshal._server.endings import Endings
    from capmarshal._server.journal import Journal
    from capmarshal._server.knocks import Knocks
    from capmarshal._server.objects import Objects
    from capmarshal._server.shares import Shares
    from capmarshal._server.slots import Slots
    from capmarshal._server.timers import Timers
    from capmarshal._typed.colour import Colour
    from capmarshal._typed.interface import Interface

# Nanoseconds between two looks at channels of revoked grants whose calls were in progress then.
_LOOK = 1_000_000_000
_TOLD, _END = "unreachable, of ", "{}, the end of its stream,"


class Grants:
    """Those of one server.

    Args:
        knocks: taken at their doors.
        slots: of the server.
        timers: of its loop.
        endings: of channels.
        dispatcher: runs what is told that nobody can reach an object any more.
        objects: that they lead to.
        journal: of the entrypoint.
        shares: what may go to whom.
        colour: of the interfaces that are served.
        ending: whether the server is to end.
        wake_up: has the loop come round.

    Attributes:
        ask: has that awaited which is told that nobody can reach an object any more, where an event loop serves.
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
        colour: Colour,
        *,
        ending: Callable[[], bool],
        wake_up: Callable[[], None],
    ) -> None:
        self._knocks = knocks
        self._slots = slots
        self._timers = timers
        self._endings = endings
        self._dispatcher = dispatcher
        self._objects = objects
        self._journal = journal
        self._colour = colour
        self._ending = ending
        self._wake_up = wake_up
        # All their doors have the turns of one: who holds many and knocks at all would take as many from the others.
        self._turns = slots.add_shared()
        self._closed = False
        # Those that are in force, by the key of their door.
        self._in_force: dict[int, Grant] = {}
        self._doorkeepers: dict[Grant, Doorkeeper] = {}
        # Those that this process holds, of grants that are over, too.
        self._doors: weakref.WeakSet[Door] = weakref.WeakSet()
        self._new: collections.deque[Grant] = collections.deque()
        # Those that were taken back, and have channels, or an end that is not closed yet.
        self._revoked: dict[Grant, None] = {}
        # Streams of those, which are to end.
        self._cut_short: dict[Grant, Streaming] = {}
        self._handed_out = HandedOut(shares)
        # Those of which it is being told, in an event loop, that nobody can reach the object.
        self._telling: dict[Grant, Asking | None] = {}
        self.ask: Ask | None = None
        self._looking = Again(timers, _LOOK, self._end_revoked)
        endings.before(self._channel_ends)

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
            through: the grant that it is a stream of; it is revoked with that.

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
                self.revoke(grant, through.reason)
            return space.capability(door, grant.badge)
        except BaseException:
            self.discard(grant)
            raise

    def _add(self, grant: Grant, holder: Peer | None) -> bool:
        """Takes one more; False, and the caller still owns it, where nobody serves any more."""
        with private.lock:
            if not self._closed:
                self._handed_out.add(grant, holder)
                if grant.through is not None:
                    grant.through.streams.add(grant)
                self._in_force[grant.key] = grant
                self._new.append(grant)
        if not self._closed:
            self._wake_up()
        return not self._closed

    def hand_out(self, target: Interface, peer: Peer | None, grant: Grant | None) -> Capability | None:
        """A grant of what a method has returned, and nobody manages: it lives as long as anybody can reach it.

        Args:
            target: the object.
            peer: whose the call was; None: this process made it, inline.
            grant: by which it came; None: by the entrypoint's own door.

        Returns:
            The capability, which nobody else keeps; None where nobody serves any more.

        Raises:
            TypeError, InterfaceError: it cannot be served here.
            Failing: there is no room, or the process has its share.
        """
        check_manageable(target, self._colour)
        with private.lock:
            refusal = self._handed_out.refusal(peer)
        if refusal:
            self._journal.warning(peer, "grants", "a result was not sent: %s", refusal)
            raise Failing(Code.TOO_BIG, f"its result has one object more than may be: {refusal}")
        label = grant.label if grant is not None else self._journal.label
        # Of a stream in this process, too, the end is told: so it is a proxy that has it, and not the object itself.
        streams = isinstance(target, Streaming)
        only, unreachable = (PULLED, END) if streams else (None, None)
        try:
            return self.make(label, target, only, unreachable, peer, through=grant if streams else None)
        except TableFull as error:
            raise Failing(Code.TABLE_FULL, f"at the server, {error.strerror}") from error

    def hand_under(self, thing: Any, grant: Grant) -> bytes:
        """The badge of what a method has returned to a call through a deep grant, to which it belongs from here on.

        Raises:
            TypeError, InterfaceError: it cannot be served here.
            StaleCapability: it stands for an object that is not there.
            Failing: there are as many as may be, or it is a stream.
        """
        badge = make_badge()
        if self._is_over(thing):
            return badge
        own = own_object(thing, self._dispatcher, grant.key)
        if isinstance(own, bytes):
            return own
        target, door = own
        if isinstance(target, Streaming):
            words = "it is a stream, whose end its own door tells, and through a deep grant goes nothing that has one"
            raise Failing(Code.UNSENDABLE, f"{words}: return an object whose method gives the next items")
        check_manageable(target, self._colour)
        with private.lock:
            deep = grant.deep
            if deep is None or grant.reason is not None or self._in_force.get(grant.key) is not grant:
                # It is over, and the call in progress is answered: by what cannot be called, as all that it has led to.
                return badge
            # Of the root not all may be called, though it is what the method has returned.
            if target is grant.target:
                return grant.badge
            # There is none of the entrypoint's own door, which is none of these.
            other = self._in_force.get(door.key) if door is not None else None
            if other is None and door in self._doors:
                # It was revoked meanwhile.
                return badge
            by = other.key if other is not None else 0
            known = deep.badge_for(target, by)
            if known is not None or not deep.full:
                if other is not None:
                    other.passed_on.add(grant)
                if known is None:
                    deep.add(target, by, badge)
                # Also what is known: Ctrl-C may have come between these two.
                self._objects.enter(combined(known or badge, grant.secret), target)
                return known or badge
        raise Failing(
            Code.TOO_BIG,
            f"its result has one object more than may go out through the grant {grant.label!r}: {deep.most} (objects)",
        )

    def dissolve(self, target: Interface, reason: str) -> None:
        """Ends what leads to an object, from any thread."""
        for grant in self.of(target):
            self.revoke(grant, reason)
        with private.lock:
            in_force = tuple(self._in_force.values())
        for grant in in_force:
            self._dissolve_under(grant, target)

    def _dissolve_under(self, grant: Grant, target: Interface) -> None:
        """Ends what leads to an object through a deep grant, if anything does."""
        # A lock for each: what Ctrl-C raises at the jump back of a loop is in no `with` under CPython 3.12 and 3.13.
        with private.lock:
            if grant.deep is not None:
                for badge in grant.deep.badges_of(target):
                    self._objects.remove(combined(badge, grant.secret))
                # Last, so that it can be done again after Ctrl-C; likewise below.
                grant.deep.remove(target)

    def _end_passed_on(self, grant: Grant) -> None:
        """Ends what deep grants have handed out by a capability of a grant that is revoked; the caller holds the lock.

        Not where nobody can reach that any more: a method may have made it for what it returns, and kept none of it.
        """
        for other in tuple(grant.passed_on):
            if other.deep is not None:
                for badge in other.deep.badges_by(grant.key):
                    self._objects.remove(combined(badge, other.secret))
                other.deep.remove_by(grant.key)

    def _is_over(self, thing: Any) -> bool:
        """Whether it stands for an object by a grant that is over."""
        door = door_of(capability_of(thing)) if issubclass(type(thing), (Capability, Proxy)) else None
        return door is not None and door in self._doors and door.key not in self._in_force

    def opened(self, door: Door) -> bool:
        """Whether a door that this process holds leads, or has led, to an object by a grant: it hangs up later."""
        return door in self._doors

    def at(self, key: int) -> Grant | None:
        """The grant that is in force whose door has this key, if there is one."""
        return self._in_force.get(key)

    def goes_to(self, given: Capability, peer: Peer) -> str:
        """Counts a grant that a process is given which has connected; or says why it has its share, and revokes it.

        One that was made for others, too, is counted once.

        Args:
            given: it, or any other capability, which costs this process nothing.
            peer: to whom.
        """
        door = door_of(given)
        with private.lock:
            grant = self._in_force.get(door.key) if door is not None else None
            if grant is None or self._handed_out.counts(grant):
                return ""
            refusal = self._handed_out.refusal(peer)
            if not refusal:
                self._handed_out.add(grant, peer)
                return ""
        self.revoke(grant, refusal)
        return refusal

    def of(self, target: Interface) -> list[Grant]:
        """Those in force that lead to an object."""
        with private.lock:
            all_of_them = tuple(self._in_force.values())
        # Not within: what Ctrl-C raises at the jump back is in no `with` under CPython 3.12 and 3.13.
        return [grant for grant in all_of_them if grant.target is target]

    def settle(self) -> None:
        """Opens the doors of new ones, and ends what was revoked, in the loop's thread."""
        while self._new:
            # One that was revoked meanwhile may be closed by now.
            if self._in_force.get(self._new[0].key) is self._new[0]:
                self._open(self._new[0])
            # Last: what Ctrl-C interrupts is done again.
            self._new.popleft()
        if self._end_revoked():
            self._looking.begin()

    def _open(self, grant: Grant) -> None:
        if grant not in self._doorkeepers:
            door_shut = partial(weakly(self._door_shut, None), grant)
            self._doorkeepers[grant] = Doorkeeper(
                grant.end, self._knocks, self._slots, self._timers, self._ending, door_shut, grant, self._turns
            )
        self._doorkeepers[grant].watch.resume()

    def revoke(self, grant: Grant, reason: str) -> None:
        """Takes a grant back, from any thread; does nothing where it is over."""
        with private.lock:
            if self._in_force.get(grant.key) is not grant:
                return
            grant.reason = reason
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
                # The only one there: nobody else sends to those who hold the door.
                record = epitaph.pack(grant.reason or "")
                lib.cm_send_record(grant.end.number, record, len(record), (), 0)
                shut([grant.end])
            target: object = grant.target
            if isinstance(target, Streaming):
                # In the loop's thread: it may iterate now.
                self._cut_short[grant] = target
            for stream in tuple(grant.streams):
                self.revoke(stream, grant.reason or "")
            self._end_passed_on(grant)
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
        self._handed_out.remove(grant)
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
            self._close(grant)
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

    def _close(self, grant: Grant) -> None:
        """Closes the server's end of a door, in the loop's thread; does nothing the second time."""
        doorkeeper = self._doorkeepers.get(grant)
        if doorkeeper is not None:
            doorkeeper.watch.end()
            self._doorkeepers.pop(grant, None)
        if grant.end.number >= 0:
            # Its queue may hold what takes long to close.
            reaper.close([grant.end])

    def _door_shut(self, grant: Grant) -> None:
        grant.shut = True
        self._look(grant)

    def _channel_ends(self, channel: Channel) -> None:
        # A method that runs on may call it by what has come: where it is told to end, it takes its time.
        if channel.grant is not None and channel.handler is None:
            channel.grant.channels.discard(channel)
            self._look(channel.grant)

    def call_ended(self, channel: Channel) -> None:
        """A call has ended that ran beside others, and its channel had ended before."""
        self._channel_ends(channel)

    def _look(self, grant: Grant) -> None:
        if grant.shut and not grant.channels:
            # When the channel has ended.
            self._timers.after(0, partial(self._end_unreachable, grant))

    def _end_unreachable(self, grant: Grant) -> None:
        """Nobody can call the object by a grant any more: ends it, and says so."""
        with private.lock:
            over = self._in_force.get(grant.key) is not grant or grant.reason is not None
            if self._ending() or over or grant in self._telling:
                return
        closed = False
        try:
            space.remove_home(grant.key)
            with private.lock:
                self._take_out(grant)
            self._close(grant)
            closed = True
            if grant.unreachable is not None:
                self._run(grant)
        except BaseException as error:
            if grant.unreachable is not None or not closed:
                # A signal handler's, which came before.
                self._look(grant)
                raise
            self._failed(grant, error)
            if not isinstance(error, Exception) and self._dispatcher.calls.ends_service(error):
                raise
        finally:
            if grant.unreachable is None and closed and grant not in self._telling:
                with private.lock:
                    self._forget(grant)

    def _run(self, grant: Grant) -> None:
        # What is told to a stream is told by its server, and takes no time.
        target: object = grant.target
        if self.ask is None or isinstance(target, Streaming):
            what = _END.format(target.where) if isinstance(target, Streaming) else f"{_TOLD}{grant!r},"
            self._dispatcher.run_beside(what, partial(_tell, grant))
            return
        # Until that has ended, it is counted for whoever could reach it last: nobody has more of them run than that.
        self._telling[grant] = None
        try:
            asking = self.ask(partial(_tell, grant), partial(self._told, grant), "unreachable")
        except BaseException:
            self._telling.pop(grant, None)
            raise
        # It may have ended when this returns; what has ended is not kept.
        if grant in self._telling:
            self._telling[grant] = asking

    def _told(self, grant: Grant, _given: object, failure: BaseException | None) -> None:
        """It was told, in a task, that nobody can reach an object."""
        self._telling.pop(grant, None)
        if failure is not None:
            self._failed(grant, failure)
        with private.lock:
            self._forget(grant)

    def _failed(self, grant: Grant, error: BaseException) -> None:
        target: object = grant.target
        if isinstance(target, Streaming):
            self._stream_failed(target, error)
            return
        words = "what was to be called when nobody can reach %r failed"
        self._journal.error(None, "unreachable", words, grant, exc_info=error)

    def _stream_failed(self, stream: Streaming, error: BaseException) -> None:
        self._journal.error(None, f"{stream.where}, end", END_FAILED, stream.where, exc_info=error)

    def in_progress(self) -> str:
        """What is told in tasks that nobody can reach an object, for people; empty: nothing is."""
        told = tuple(self._telling)
        more = f" and {len(told) - 1} others" if len(told) > 1 else ""
        return f"{_TOLD}{told[0]!r}{more}" if told else ""

    def end_telling(self) -> None:
        """Has nothing told any more in tasks; what has not begun is told when it is served again."""
        for grant in tuple(self._telling):
            asking = self._telling.pop(grant)
            if asking is not None:
                asking.cancel()
            if grant.unreachable is not None:
                self._look(grant)
                continue
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
            self._revoked.clear()
            self._handed_out.clear()
        self._new.clear()
        for grant in grants:
            self._close(grant)
            grant.streams.clear()
            target: object = grant.target or self._cut_short.pop(grant, None)
            if isinstance(target, Streaming):
                self._end_stream(target, target.end)

    def _end_stream(self, stream: Streaming, end: Callable[[], None]) -> None:
        """Ends what iterates, as nobody pulls any more."""
        try:
            self._dispatcher.run_beside(_END.format(stream.where), end)
        except Exception as error:  # noqa: BLE001 - it is logged, and the others are ended, too
            self._stream_failed(stream, error)

    def in_child(self) -> None:
        """Has none in a forked child."""
        self._closed = True
        self._in_force.clear()
        self._revoked.clear()
        self._cut_short.clear()
        self._handed_out.clear()
        self._doorkeepers.clear()
        self._new.clear()
        self._telling.clear()


def _tell(grant: Grant) -> object:
    """Says that nobody can reach an object; gives what is to be awaited for that, if anything is."""
    # No call between these two: what Ctrl-C keeps from beginning is told later, and what has begun is not told again.
    tell, grant.unreachable = grant.unreachable, None
    return tell(grant.target) if tell is not None and grant.target is not None else None
