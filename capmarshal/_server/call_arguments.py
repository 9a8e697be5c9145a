"""What came with a call: its arguments are made of it, or its answer says why they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._descriptors.descriptor import numbers_of
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel.errors import ArgumentError, Error, StaleCapability
from capmarshal._protocol.answer_bound import AnswerBound
from capmarshal._protocol.epitaph import revoked
from capmarshal._protocol.faults import Code
from capmarshal._protocol.wire import BADGE_SIZE, DESCRIBE, PLAIN, Entry, lines_in
from capmarshal._server.answer import Answer, fail, reply
from capmarshal._typed.codec import BAD_PAYLOAD, is_msgspecs
from capmarshal._typed.incoming import Incoming, Owned
from capmarshal._typed.marks import forwards
from capmarshal._typed.stream import bound_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capmarshal._capabilities.door import Home
    from capmarshal._server.answer import Turn
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects
    from capmarshal._server.served_by import ServedBy
    from capmarshal._typed.interface import Interface
    from capmarshal._typed.method import Method

# Of what a stranger calls a method, this much goes into errors.
NAME_SHOWN = 64

Encoded: TypeAlias = "bytes | memoryview"


class CallArguments:
    """Makes arguments of what came with calls of an entrypoint's objects.

    Args:
        objects: what can be called.
        journal: where it is written what went wrong, and may be no fault of the caller's.
        home: the entrypoint, as the capability space knows it, weakly: whose own objects come home to its methods.
        served: by whom the calls are run.
    """

    def __init__(self, objects: Objects, journal: Journal, home: Callable[[], Home | None], served: ServedBy) -> None:
        self._objects = objects
        self._journal = journal
        self._home = home
        self._served = served

    def made(
        self,
        turn: Turn,
        method: Method,
        payload: Encoded,
        came: Inbox | Incoming | None,
        owned: Owned,
        table: bytes | None,
        failure: Exception | None = None,
    ) -> tuple[Sequence[Any], Mapping[str, Any], Owned]:
        """The arguments of a call with which more than data may have come, by position and by name, and that.

        Args:
            turn: that came.
            method: that is called.
            payload: of the call.
            came: with it.
            owned: has taken some of that already.
            table: of it.
            failure: raised when they were taken as they mostly come; it is said when they are decoded in this way.

        Raises:
            ArgumentError, StaleCapability: they are not what the interface says; ``owned`` has what came.
        """
        if failure is not None:
            if type(came) is Inbox and came.struct.count:
                # All of it is there still: these own nothing.
                owned.produced.clear()
            elif not numbers_of(owned.produced):
                # A signal handler's, for some of it has become something else; of a bad payload nothing does.
                raise failure
        incoming = self._table(turn, came, owned, table)
        try:
            arguments, by_name = method.decode_arguments(payload, incoming)
            if failure is not None and not is_msgspecs(failure):
                # A signal handler's, as the arguments are good: it ends the call as if the method had raised it.
                raise failure
        finally:
            incoming.own_rest()
            # Also where this raises: the call has an answer, which closes what came.
            owned.produced = incoming.produced
        if incoming.streams:
            shares = self._served.shares
            bound = AnswerBound(self._journal.label, shares.max_bytes, shares.max_descriptors)
            for stream in incoming.streams:
                bound_by(stream, bound)
        return arguments, by_name, incoming

    def _table(self, turn: Turn, came: Inbox | Incoming | None, owned: Owned, table: bytes | None) -> Incoming:
        """The table of what came with a call, taken; of an inbox, ``owned`` has taken some already."""
        if isinstance(came, Incoming):
            return came
        if came is not None:
            # Unless they are stolen by now.
            came.steal_each(owned.produced)
        descriptors = DescriptorList.of(owned.produced)
        entries = PLAIN[: len(descriptors)] if table is None else [Entry(*line) for line in lines_in(table)]
        return Incoming(entries, descriptors, self._served.peer_of(turn.slot), self._home())

    def not_there(self, turn: Turn, key: bytes, came: Inbox | Incoming | None, table: bytes | None) -> Answer:
        """The answer to a call of what nobody knows."""
        incoming = self._table(turn, came, Owned(), table)
        incoming.own_rest()
        badge, method = key[:BADGE_SIZE], key[BADGE_SIZE:]
        target = self._objects.get(badge)
        if target is None:
            channel = self._served.channel_of(turn.slot)
            if channel is not None and channel.grant is not None and channel.grant.reason is not None:
                if channel.grant.silent:
                    return fail(turn.id, Code.UNREACHED, "what it stood for is gone", incoming.produced)
                return fail(turn.id, Code.REVOKED, revoked(channel.grant.reason), incoming.produced)
            return fail(
                turn.id, Code.STALE, "the capability's object is not there: dissolved, or never was", incoming.produced
            )
        if method == DESCRIBE and self._objects.described and not forwards(type(target)):
            return self._description(turn, target, self._objects.only_of(badge), incoming.produced)
        name = method[:NAME_SHOWN].decode("utf-8", "backslashreplace")
        if method == DESCRIBE:
            words = f"entrypoint {self._journal.label!r} does not say what can be called (describe=False)"
            if self._objects.described:
                words = "what forwards calls, and by this grant some only (only=...), does not say which"
        elif self._objects.withholds(badge, method):
            words = f"{name}() is not among what this grant lets call of {type(target).__qualname__} (only=...)"
        else:
            words = f"{type(target).__qualname__} has no remote method {name!r}: the server may be older, or another"
        return fail(turn.id, Code.UNKNOWN_METHOD, words, incoming.produced)

    def _description(
        self, turn: Turn, target: Interface, only: frozenset[bytes] | None, owned: Sequence[Any]
    ) -> Answer:
        """The answer that says which methods of an object can be called: those in ``only``, or all."""
        # Imported when used: few are asked.
        from capmarshal._typed.describing import described

        try:
            payload = described(type(target), only)
        except Exception as error:  # noqa: BLE001 - of a class of the application's, which would not end the service
            words = f"saying what can be called of {type(target).__qualname__}"
            self._journal.error(self._served.peer_of(turn.slot), words, "%s", words, exc_info=error)
            return fail(turn.id, Code.UNKNOWN_METHOD, f"{words} failed: its log says how", owned)
        return reply(turn.id, payload)._replace(arguments=owned)

    def refused(self, turn: Turn, method: Method, error: ArgumentError | StaleCapability, owned: Owned) -> Answer:
        """The answer to a call whose arguments are not what the interface says."""
        if isinstance(error, StaleCapability):
            return fail(turn.id, Code.STALE, f"arguments: {error}", owned.produced)
        if _is_strange(error):
            peer, words = self._served.peer_of(turn.slot), "%s: making its arguments"
            self._journal.error(peer, f"{method.where}, arguments", words, method.where, exc_info=error)
        return fail(turn.id, Code.ARGUMENT, str(error), owned.produced)


def count_of(came: Inbox | Incoming | None) -> int:
    """How many descriptors came with a call."""
    if came is None:
        return 0
    return came.struct.count if isinstance(came, Inbox) else came.count


def _is_strange(error: BaseException) -> bool:
    """Whether what arguments were refused for may be no fault of theirs: raised by a signal handler, or by mistake."""
    while error.__cause__ is not None:
        error = error.__cause__
    return not isinstance(error, (*BAD_PAYLOAD, Error))
