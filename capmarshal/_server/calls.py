"""Running one call: arguments in, method, results out, and the answer to whatever happens on the way.

What a method raises ends its call and nothing else, whatever it is: ``SystemExit`` of a parser of options,
``CancelledError``, a panic of a foreign library.  The caller gets it as an error.  Only what :attr:`Calls.ends_service`
recognises goes on to whoever serves.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from capmarshal._capabilities import homecoming
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor import numbers_of
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import ArgumentError, Error, StaleCapability, printable
from capmarshal._kernel.native import FOREVER, lib
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol import faults, wire
from capmarshal._protocol.epitaph import revoked
from capmarshal._protocol.faults import Code, Failing, Fault
from capmarshal._protocol.raised import Raised
from capmarshal._protocol.wire import BADGE_SIZE, PLAIN, Entry, lines_in
from capmarshal._server import escapes, ownership
from capmarshal._server.answer import Answer, fail
from capmarshal._server.caller import caller_by, own_caller
from capmarshal._server.served_by import NOBODY
from capmarshal._server.streams import Producer, Streaming, class_for
from capmarshal._typed.codec import BAD_PAYLOAD, LONG, is_msgspecs
from capmarshal._typed.incoming import Incoming, Owned
from capmarshal._typed.long import Long
from capmarshal._typed.outgoing import NOTHING, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capmarshal._capabilities.capability import Capability
    from capmarshal._capabilities.door import Home
    from capmarshal._capabilities.homecoming import CameHome
    from capmarshal._server.caller import Caller
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.grant import Grant
    from capmarshal._server.handler import Handler
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects
    from capmarshal._typed.in_order import Results
    from capmarshal._typed.interface import Interface
    from capmarshal._typed.method import Method

T = TypeVar("T")

# Of what a stranger calls a method, this much goes into errors.
NAME_SHOWN = 64

_ENDS = "the entrypoint ends, and serves no object more"

# Wanted in each call.
_now_in_force, _put_in_force = _deadline.current.get, _deadline.current.set

# Nothing is ever added to these.
_NOTHING_OWNED = Owned()
_NO_RESULTS: Results = ([], [])
_NO_NAMES: Mapping[str, Any] = {}

Encoded: TypeAlias = "bytes | memoryview"
# Takes what a call owns, and its results, where all of it can leave with the reply; whether that is so.
Leave: TypeAlias = "Callable[[Owned, Results], bool]"


def stays(_owned: Owned, _results: Results) -> bool:
    """Says that nothing leaves with the reply: an answer has it."""
    return False


class Turn(Protocol):
    """The record that is being answered."""

    @property
    def id(self) -> int:
        """Of the call."""

    @property
    def slot(self) -> int:
        """Of the channel that it came by."""


class Calls:
    """Runs calls of an entrypoint's objects, one at a time and one within the other.

    Args:
        objects: what can be called.
        journal: where it is written what methods raise.
        home: the entrypoint, as the capability space knows it, weakly: whose own objects come home to its methods.

    Attributes:
        thread: that runs the calls, while one does.
        ends_service: whether something that a method raised, and that is no :class:`Exception`, is to end the service.
        inline: of the calls in progress that the serving thread itself makes, each the grant that it is made by, or
            None.
        served: by whom they are run.
    """

    def __init__(self, objects: Objects, journal: Journal, home: Callable[[], Home | None]) -> None:
        self._objects = objects
        self._journal = journal
        self._home = home
        self._calls = ownership.InProgress(objects.running, weakly(self.caller, caller_by(None)))
        self.thread: int | None = None
        self.ends_service: Callable[[BaseException], bool] = escapes.nothing
        self.inline: list[Grant | None] = []
        self.served = NOBODY

    @property
    def label(self) -> str:
        """Of the entrypoint."""
        return self._journal.label

    def caller(self) -> Caller:
        """Who makes the innermost of the calls in progress."""
        return own_caller(self.inline[-1]) if self.inline else caller_by(self.served.channel_of(self.served.slot()))

    def serve(self, run: Callable[[], None]) -> None:
        """Has ``run`` run calls: what that changes in the thread is put back at the end."""
        deadline_before, calls_before, thread_before = _now_in_force(), ownership.current.get(), self.thread
        came_home_before = homecoming.here.get()
        # No context manager, whose end Ctrl-C can keep from beginning.
        try:
            _deadline.current.set(FOREVER)
            homecoming.here.set(None)
            ownership.current.set(self._calls)
            self.thread = threading.get_ident()
            run()
        finally:
            self.thread = thread_before
            _deadline.current.set(deadline_before)
            homecoming.here.set(came_home_before)
            # Last: where Ctrl-C comes before, nothing is in progress there.
            ownership.current.set(calls_before)

    def are_current(self) -> bool:
        """Whether what runs here was begun by whoever runs these, in its thread or one that has its context."""
        current = ownership.current.get()
        return current is self._calls or (current is not None and current.within is self._calls)

    def run_own(self, run: Callable[[], T]) -> T:
        """Has a call run that is made within whatever runs: what is kept in it is not that's, nor is who calls."""
        before = ownership.current.get()
        try:
            ownership.current.set(self._calls)
            return run()
        finally:
            ownership.current.set(before)

    def end_all(self) -> None:
        """Forgets the calls in progress: Ctrl-C may have kept some from ending, and none goes on."""
        self._objects.end_all()
        self._calls.kept.clear()
        self.inline.clear()

    def run(
        self,
        turn: Turn,
        key: bytes,
        payload: Encoded,
        deadline: int,
        came: Inbox | Incoming | None = None,
        leave: Leave = stays,
        table: bytes | None = None,
    ) -> bytes | Answer | Handler:
        """Runs a call.

        Args:
            turn: knows the call's ID and slot, and is asked only where they are needed.
            key: badge and method's name.
            payload: the arguments.
            deadline: until when it may take.
            came: with it, taken: descriptors, in an inbox; or a table that has its own; None: it is data alone.
            leave: takes what is to be closed, and to be sent, with the reply.
            table: of what came in an inbox, checked; None: each of the descriptors is a plain one, in their order.

        Returns:
            The result's payload, where the rest has left or there is none; else an answer, or who will have one.
        """
        objects, calls = self._objects, self._calls
        # Before it is looked up: see Objects.
        objects.running.append(key)
        # What is in force in a call that this one is made within, and what it has kept, is not this one's.
        before, kept_before = _now_in_force(), len(calls.kept)
        try:
            try:
                found = objects.known[key]
            except KeyError:
                first = objects.find(key)
                if first is None:
                    return self._not_there(turn, key, came, table)
                found = first
            target, method, decode, encode, plain = found
            owned, outgoing, results = _NOTHING_OWNED, NOTHING, _NO_RESULTS
            try:
                # Also the same one, where that is of a block around this call: the call knows nothing of that.
                if deadline is not before:
                    _put_in_force(deadline)
                try:
                    by_name: Mapping[str, Any] = _NO_NAMES
                    run = getattr(target, method.name)
                    if came is None and decode is not None:
                        try:
                            arguments = decode(payload)
                        except Exception as error:  # noqa: BLE001 - said, or raised again, there
                            nothing = Incoming([], DescriptorList())
                            # A signal handler's ends the call as if the method had raised it.
                            arguments, by_name = method.decode_arguments_after(error, payload, nothing)
                    else:
                        # Before there is anything in it, which is closed below whatever happens.
                        owned, in_order, arguments = Owned(), method.arguments_in_order, None
                        if in_order is not None and type(came) is Inbox:
                            try:
                                sender = None if table is None else self.served.peer_of(turn.slot)
                                arguments = in_order.received(payload, came, owned, table, sender)
                            except Exception as error:  # noqa: BLE001 - said, or raised again, there
                                left = came, owned, table, error
                                arguments, by_name, owned = self._received(turn, method, payload, *left)
                        if arguments is None:
                            arguments, by_name, owned = self._received(turn, method, payload, came, owned, table)
                            if owned.came_home is not None:
                                run = partial(_run_with, owned.came_home, run)
                except (ArgumentError, StaleCapability) as error:
                    return self._refused(turn, method, error, owned)
                # To pass no names costs as much as the call.
                if by_name:
                    result = run(*arguments, **by_name)
                elif (count := len(arguments)) == 1:
                    # CPython calls what is given a tuple by way of C, which costs as much as the rest of the call.
                    (argument,) = arguments
                    result = run(argument)
                elif count == 2:
                    first, second = arguments
                    result = run(first, second)
                else:
                    result = run(*arguments)
                if encode is not None:
                    try:
                        reply = encode(result)
                        if type(result) is not plain and type(result) not in method.known_results:
                            self.look_at(turn, method, result)
                    except Exception:
                        outgoing = self.outgoing(turn, target, owned)
                        # Says what is wrong with the result; where that is nothing, a signal handler raised something.
                        method.encode_result(result, outgoing)
                        raise
                    if owned is _NOTHING_OWNED and type(reply) is bytes:
                        return reply
                elif method.result_in_order is not None and (returned := method.result_in_order.returned(result)):
                    reply, results = returned
                else:
                    outgoing = self.outgoing(turn, target, owned)
                    if method.gives_stream:
                        result = self.produce(method, result, owned, calls.kept[kept_before:], self.caller())
                        result.target = target
                    reply = method.encode_result(result, outgoing)
                    if method.gives_stream:
                        # The stream's from here on.
                        owned = _NOTHING_OWNED
                rest = b""
                if isinstance(reply, Long):
                    rest, reply = reply.end, reply.start
                elif outgoing is NOTHING and len(calls.kept) == kept_before and leave(owned, results):
                    return reply
                if results is not _NO_RESULTS:
                    outgoing = Outgoing.of(results[0])
                answer = succeeded(turn, reply, owned, outgoing, calls.kept[kept_before:])
                return answer._replace(rest=rest) if rest else answer
            except BaseException as error:  # noqa: BLE001 - answered; and raised again then, if it must not end here
                if results is not _NO_RESULTS and outgoing is NOTHING:
                    outgoing = Outgoing.of(results[0])
                if type(came) is Inbox:
                    # A signal handler's may have come before it was taken.
                    reaper.close([came.steal()])
                fault = fault_for(error, method, payload)
                return self.failed(turn, method, error, fault, owned, outgoing, calls.kept[kept_before:])
        finally:
            # Whatever the method left.
            if _now_in_force() is not before:
                _put_in_force(before)
            objects.running.pop()
            if objects.awaited:
                objects.tell()
            if calls.kept:
                del calls.kept[kept_before:]

    def produce(self, method: Method, result: Any, owned: Owned, kept: Sequence[object], caller: Caller) -> Any:
        """What serves a stream.

        Args:
            method: that gives it.
            result: of that: what is iterated over.
            owned: of its arguments; taken, unless this raises.
            kept: what the method has kept of these.
            caller: of the method.

        Raises:
            Failing: nothing can iterate over the result.
        """
        ends_service = weakly(self._ends_service, False)
        return class_for(method, Producer)(method, result, owned, kept, self.served.shares, caller, ends_service)

    def _ends_service(self, error: BaseException) -> bool:
        return self.ends_service(error)

    def named(self, key: bytes) -> str:
        """What people call the method that is called; a name that none has is a stranger's own words."""
        found = self._objects.find(key)
        return found[1].where if found is not None else ascii(key[BADGE_SIZE:][:NAME_SHOWN])

    def look_at(self, turn: Turn, method: Method, result: object) -> None:
        """Says in the log what is wrong with a result that is data, if something is: whose method it is can mend that.

        It is sent all the same: its client may know the interface as it has been.
        """
        if wrong := method.misfit(result):
            words = "%s returned what its interface does not say: %s"
            self._journal.error(self._peer(turn), f"{method.where}, result", words, method.where, printable(wrong))

    def _peer(self, turn: Turn) -> Peer | None:
        return self.served.peer_of(turn.slot)

    def _channel(self, turn: Turn) -> Channel | None:
        """By which a call came whose method has returned; None: by none, it is made inline."""
        return self.served.channel_of(turn.slot)

    def outgoing(self, turn: Turn, target: object, owned: Owned) -> Outgoing:
        """The table of a call's answer, still empty.

        Args:
            turn: that the call came in.
            target: whose method was called.
            owned: of its arguments.
        """
        # Items are what came with the call that has begun the stream.
        came_home, began = owned.came_home, None
        if isinstance(target, Streaming):
            came_home, began = target.came_home, target.target
        peer, grant = self._came_by(turn)
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

    def _came_by(self, turn: Turn) -> tuple[Peer | None, Grant | None]:
        """Whose a call is, None: this process's, which makes it inline; and the grant that it came by, if by any."""
        if self.inline:
            return None, self.inline[-1]
        channel = self._channel(turn)
        return (channel.peer, channel.grant) if channel is not None else (None, None)

    def _hand_out(self, peer: Peer | None, grant: Grant | None, began: object, target: Interface) -> Capability:
        made = self.served.hand_out(target, peer, grant, began)
        if made is None:
            raise Failing(Code.UNSENDABLE, _ENDS)
        return made

    def _hand_under(self, grant: Grant, thing: Any) -> bytes:
        badge = self.served.hand_under(thing, grant)
        if badge is None:
            raise Failing(Code.UNSENDABLE, _ENDS)
        return badge

    def _received(
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
        return Incoming(entries, descriptors, self.served.peer_of(turn.slot), self._home())

    def _not_there(self, turn: Turn, key: bytes, came: Inbox | Incoming | None, table: bytes | None) -> Answer:
        """The answer to a call of what nobody knows."""
        incoming = self._table(turn, came, Owned(), table)
        incoming.own_rest()
        badge, method = key[:BADGE_SIZE], key[BADGE_SIZE:]
        target = self._objects.get(badge)
        if target is None:
            channel = self.served.channel_of(turn.slot)
            if channel is not None and channel.grant is not None and channel.grant.reason is not None:
                return fail(turn.id, Code.REVOKED, revoked(channel.grant.reason), incoming.produced)
            return fail(
                turn.id, Code.STALE, "the capability's object is not there: dissolved, or never was", incoming.produced
            )
        name = method[:NAME_SHOWN].decode("utf-8", "backslashreplace")
        if self._objects.withholds(badge, method):
            words = f"{name}() is not among what this grant lets call of {type(target).__qualname__} (only=...)"
        else:
            words = f"{type(target).__qualname__} has no remote method {name!r}: the server may be older, or another"
        return fail(turn.id, Code.UNKNOWN_METHOD, words, incoming.produced)

    def _refused(self, turn: Turn, method: Method, error: ArgumentError | StaleCapability, owned: Owned) -> Answer:
        """The answer to a call whose arguments are not what the interface says."""
        if isinstance(error, StaleCapability):
            return fail(turn.id, Code.STALE, f"arguments: {error}", owned.produced)
        if _is_strange(error):
            peer, words = self.served.peer_of(turn.slot), "%s: making its arguments"
            self._journal.error(peer, f"{method.where}, arguments", words, method.where, exc_info=error)
        return fail(turn.id, Code.ARGUMENT, str(error), owned.produced)

    def failed(
        self,
        turn: Turn,
        method: Method,
        error: BaseException,
        fault: Fault,
        owned: Owned,
        outgoing: Outgoing,
        kept: Sequence[object],
    ) -> Answer:
        """The answer to a call whose method raised, or was given or returned what is no good."""
        if fault.code is Code.RAISED:
            kind = f"{method.where}: {type(error).__qualname__}"
            self._journal.error(self._peer(turn), kind, "%s raised", method.where, exc_info=error)
        data = wire.pack_fail(turn.id, faults.encode(fault))
        answer = ownership.failed(turn.id, data, owned, outgoing, kept)
        if not isinstance(error, Exception) and self.ends_service(error):
            return answer._replace(escape=[error])
        return answer


def _run_with(came_home: CameHome, run: Callable[..., Any], *arguments: Any, **by_name: Any) -> Any:
    """Runs a method with whose arguments something has come home."""
    before = homecoming.here.get()
    try:
        homecoming.here.set(came_home)
        return run(*arguments, **by_name)
    finally:
        homecoming.here.set(before)


def succeeded(turn: Turn, reply: bytes, owned: Owned, outgoing: Outgoing, kept: Sequence[object]) -> Answer:
    """The answer to a call whose method has returned, where more is to be done than to send its reply."""
    if owned.writers:
        ownership.write_out(owned, kept)
    data = wire.pack_reply(turn.id, outgoing.entries, len(outgoing.numbers), reply, lib.cm_cpu())
    return ownership.succeeded(turn.id, data, owned, outgoing, kept)


def _is_strange(error: BaseException) -> bool:
    """Whether what arguments were refused for may be no fault of theirs: raised by a signal handler, or by mistake."""
    while error.__cause__ is not None:
        error = error.__cause__
    return not isinstance(error, (*BAD_PAYLOAD, Error))


def fault_for(error: BaseException, method: Method, payload: Encoded) -> Fault:
    """What a caller is told of an error, also where the error's own class raises when it is asked."""
    if isinstance(error, Failing):
        return Fault(error.code, str(error))
    try:
        # Of a long one the beginning: all of it is neither copied nor looked through for a path.
        return faults.raised(error, method.raises, bytes(payload[:LONG]))
    except BaseException as worse:  # noqa: BLE001 - of __str__, say; the first error is what the call ended by
        words = f"(its text cannot be had: {type(worse).__qualname__})"
        return Fault(Code.RAISED, "", Raised([type(error).__qualname__], words))
