"""What goes back from a method that has run: the table of its result, with what is handed out in it, or its error."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from capmarshal._kernel.native import lib
from capmarshal._protocol import faults, wire
from capmarshal._protocol.faults import Code, Failing, Fault
from capmarshal._protocol.raised import Raised
from capmarshal._server import ownership
from capmarshal._server.streams import Streaming
from capmarshal._typed.codec import LONG
from capmarshal._typed.long import parts_of
from capmarshal._typed.outgoing import Outgoing
from capmarshal._typed.untyped import UntypedMethod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._capabilities.capability import Capability
    from capmarshal._server.answer import Answer, Turn
    from capmarshal._server.call_arguments import Encoded
    from capmarshal._server.clients import Peer
    from capmarshal._server.grant import Grant
    from capmarshal._server.served_by import ServedBy
    from capmarshal._typed.incoming import Owned
    from capmarshal._typed.interface import Interface
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method

_ENDS = "the entrypoint ends, and serves no object more"


class CallResults:
    """Makes the tables of what methods return.

    Args:
        served: by whom their calls are run.
    """

    def __init__(self, served: ServedBy) -> None:
        self._served = served

    def outgoing(self, target: object, owned: Owned, peer: Peer | None, grant: Grant | None) -> Outgoing:
        """The table of a call's answer, still empty.

        Args:
            target: whose method was called.
            owned: of its arguments.
            peer: whose the call is; None: this process's, which makes it inline.
            grant: that it came by, if by any.
        """
        # Items are what came with the call that has begun the stream.
        came_home, began = owned.came_home, None
        if isinstance(target, Streaming):
            came_home, began = target.came_home, target.target
        if grant is not None and grant.deep is not None:
            return Outgoing(serving=True, came_home=came_home, hand_under=partial(self._hand_under, grant))
        called: tuple[object, bytes | None] | None = None
        if began is not None:
            called = (began, None) if grant is not None and grant.through is not None else None
        elif grant is not None:
            # Not the grant's target, which it has no more where it is revoked while its call is in progress.
            called = target, grant.badge
        hand_out = partial(self._hand_out, peer, grant, began)
        return Outgoing(serving=True, came_home=came_home, called=called, hand_out=hand_out)

    def _hand_out(self, peer: Peer | None, grant: Grant | None, began: object, target: Interface) -> Capability:
        made = self._served.hand_out(target, peer, grant, began)
        if made is None:
            raise Failing(Code.UNSENDABLE, _ENDS)
        return made

    def _hand_under(self, grant: Grant, thing: Any) -> bytes:
        badge = self._served.hand_under(thing, grant)
        if badge is None:
            raise Failing(Code.UNSENDABLE, _ENDS)
        return badge


def succeeded(turn: Turn, reply: Payload, owned: Owned, outgoing: Outgoing, kept: Sequence[object]) -> Answer:
    """The answer to a call whose method has returned, where more is to be done than to send its reply."""
    if owned.writers:
        ownership.write_out(owned, kept)
    start, rest = parts_of(reply)
    data = wire.pack_reply(turn.id, outgoing.entries, len(outgoing.numbers), start, lib.cm_cpu())
    return ownership.succeeded(turn.id, data, owned, outgoing, kept)._replace(rest=rest)


def fault_for(error: BaseException, method: Method, payload: Encoded) -> Fault:
    """What a caller is told of an error, also where the error's own class raises when it is asked."""
    if isinstance(error, Failing):
        return Fault(error.code, str(error))
    try:
        if isinstance(method, UntypedMethod) and (fault := faults.forwarded(error, method.raises)):
            return fault
        # Of a long one the beginning: all of it is neither copied nor looked through for a path.
        return faults.raised(error, method.raises, bytes(payload[:LONG]))
    except BaseException as worse:  # noqa: BLE001 - of __str__, say; the first error is what the call ended by
        words = f"(its text cannot be had: {type(worse).__qualname__})"
        return Fault(Code.RAISED, "", Raised([type(error).__qualname__], words))
