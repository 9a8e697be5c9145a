"""What leaves an entrypoint: an object that a method returns becomes a grant, or one of a deep grant's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Capability, Proxy, door_of
from capmarshal._capabilities.space import capability_of
from capmarshal._descriptors import private
from capmarshal._kernel.errors import TableFull
from capmarshal._protocol.faults import Code, Failing
from capmarshal._protocol.wire import combined
from capmarshal._server.deep import own_object
from capmarshal._server.objects import make_badge
from capmarshal._server.streams import END, PULLED, Streaming
from capmarshal._typed.interface import check_manageable

if TYPE_CHECKING:
    from capmarshal._server.clients import Peer
    from capmarshal._server.dispatch import Dispatcher
    from capmarshal._server.grant import Grant
    from capmarshal._server.grants import Grants
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects
    from capmarshal._typed.colour import Colour
    from capmarshal._typed.interface import Interface


class ResultGrants:
    """Hands out objects of one server, and counts who has them.

    Args:
        grants: of the server.
        dispatcher: of it, whose own objects can be handed out.
        objects: that can be called.
        journal: of the entrypoint.
        colour: of the interfaces that are served.
    """

    def __init__(
        self, grants: Grants, dispatcher: Dispatcher, objects: Objects, journal: Journal, colour: Colour
    ) -> None:
        self._grants = grants
        self._dispatcher = dispatcher
        self._objects = objects
        self._journal = journal
        self._colour = colour

    def hand_out(self, target: Interface, peer: Peer | None, grant: Grant | None, began: object) -> Capability | None:
        """A grant of what a method has returned, and nobody manages: it lives as long as anybody can reach it.

        Args:
            target: the object.
            peer: whose the call was; None: this process made it, inline.
            grant: by which it came; None: by the entrypoint's own door.
            began: the object whose method has begun the stream, where it is an item of one.

        Returns:
            The capability, which nobody else keeps; None where nobody serves any more.

        Raises:
            TypeError, InterfaceError: it cannot be served here.
            Failing: there is no room, or the process has its share.
        """
        check_manageable(target, self._colour)
        with private.lock:
            refusal = self._grants.counted.refusal(peer)
        if refusal:
            self._journal.warning(peer, "grants", "a result was not sent: %s", refusal)
            raise Failing(Code.TOO_BIG, f"its result has one object more than may be: {refusal}")
        label = grant.label if grant is not None else self._journal.label
        # Of a stream in this process, too, the end is told: so it is a proxy that has it, and not the object itself.
        only, unreachable, through = (PULLED, END, grant) if isinstance(target, Streaming) else (None, None, None)
        if target is began and grant is not None and grant.through is not None:
            # The object itself, which was called by a grant: no more of it can be called, and no longer.
            through = grant.through
            only = self._objects.only_of(through.kept_under)
        try:
            return self._grants.make(label, target, only, unreachable, peer, through=through)
        except TableFull as error:
            raise Failing(Code.TABLE_FULL, f"at the server, {error.strerror}") from error

    def goes_to(self, given: Capability, peer: Peer) -> str:
        """Counts a grant that a process is given which has connected; or says why it has its share, and revokes it.

        One that was made for others, too, is counted once.

        Args:
            given: it, or any other capability, which costs this process nothing.
            peer: to whom.
        """
        door = door_of(given)
        with private.lock:
            grant = self._grants.at(door.key) if door is not None else None
            if grant is None or self._grants.counted.counts(grant):
                return ""
            refusal = self._grants.counted.refusal(peer)
            if not refusal:
                self._grants.counted.add(grant, peer)
                return ""
        self._grants.revoke(grant, refusal)
        return refusal

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
            if deep is None or grant.reason is not None or self._grants.at(grant.key) is not grant:
                # It is over, and the call in progress is answered: by what cannot be called, as all that it has led to.
                return badge
            # Of the root not all may be called, though it is what the method has returned.
            if target is grant.target:
                return grant.badge
            # There is none of the entrypoint's own door, which is none of these.
            other = self._grants.at(door.key) if door is not None else None
            if other is None and door is not None and self._grants.opened(door):
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

    def _is_over(self, thing: Any) -> bool:
        """Whether it stands for an object by a grant that is over."""
        door = door_of(capability_of(thing)) if issubclass(type(thing), (Capability, Proxy)) else None
        return door is not None and self._grants.opened(door) and self._grants.at(door.key) is None
