"""Running one call: arguments in, method, results out, and the answer to whatever happens on the way.

What a method raises ends its call and nothing else, whatever it is: ``SystemExit`` of a parser of options,
``CancelledError``, a panic of a foreign library.  The caller gets it as an error.  Only what :attr:`Calls.ends_service`
recognises goes on to whoever serves.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from capmarshal._capabilities import homecoming
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import ArgumentError, StaleCapability, printable
from capmarshal._kernel.native import FOREVER
from capmarshal._kernel.weakly import weakly
from capmarshal._protocol import faults, wire
from capmarshal._protocol.faults import Code, Fault
from capmarshal._protocol.wire import BADGE_SIZE
from capmarshal._server import escapes, ownership
from capmarshal._server.call_arguments import NAME_SHOWN, CallArguments
from capmarshal._server.call_results import CallResults, fault_for, succeeded
from capmarshal._server.caller import caller_by, own_caller
from capmarshal._server.served_by import NOBODY
from capmarshal._server.streams import Producer, class_for
from capmarshal._typed.incoming import Incoming, Owned
from capmarshal._typed.outgoing import NOTHING, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capmarshal._capabilities.door import Home
    from capmarshal._capabilities.homecoming import CameHome
    from capmarshal._server.answer import Answer, Turn
    from capmarshal._server.call_arguments import Encoded
    from capmarshal._server.caller import Caller
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.grant import Grant
    from capmarshal._server.handler import Handler
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects
    from capmarshal._server.served_by import ServedBy
    from capmarshal._typed.in_order import Results
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method

T = TypeVar("T")

# Wanted in each call.
_now_in_force, _put_in_force = _deadline.current.get, _deadline.current.set

# Nothing is ever added to these.
NOTHING_OWNED = Owned()
_NO_RESULTS: Results = ([], [])
NO_NAMES: Mapping[str, Any] = {}

# Takes what a call owns, and its results, where all of it can leave with the reply; whether that is so.
Leave: TypeAlias = "Callable[[Owned, Results], bool]"


def stays(_owned: Owned, _results: Results) -> bool:
    """Says that nothing leaves with the reply: an answer has it."""
    return False


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
        self._calls = ownership.InProgress(weakly(self.caller, caller_by(None)), objects.running)
        self.thread: int | None = None
        self.ends_service: Callable[[BaseException], bool] = escapes.nothing
        self.inline: list[Grant | None] = []
        self.serve_for(NOBODY)

    def serve_for(self, served: ServedBy) -> None:
        """Has them run by a server: once."""
        self.served = served
        self._call_arguments = CallArguments(self._objects, self._journal, self._home, served)
        self._call_results = CallResults(served)

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
        """Has a call run that is made within whatever runs: what is kept in it is not that's, nor is who calls.

        Nor is the deadline that is in force.
        """
        calls, before, deadline_before = self._calls, ownership.current.get(), _now_in_force()
        kept_before = calls.kept
        try:
            calls.kept = []
            _put_in_force(FOREVER)
            ownership.current.set(calls)
            return run()
        finally:
            ownership.current.set(before)
            _put_in_force(deadline_before)
            calls.kept = kept_before

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
    ) -> Payload | Answer | Handler:
        """Runs a call: no deadline is in force, and nothing kept, when it begins, and when it has ended.

        Args:
            turn: knows the call's ID and slot, and is asked only where they are needed.
            key: badge and method's name.
            payload: the arguments.
            deadline: until when it may take.
            came: with it, taken: descriptors, in an inbox; or a table that has its own; None: it is data alone.
            leave: takes what is to be closed, and to be sent, with the reply.
            table: of what came in an inbox, checked; None: each of the descriptors is a plain one, in their order.

        Returns:
            The result's payload, where all else has left, or nothing had come and there is nothing else; else an
            answer, or who will have one.
        """
        objects, calls = self._objects, self._calls
        # Before it is looked up: see Objects.
        objects.running.append(key)
        try:
            try:
                found = objects.known[key]
            except KeyError:
                first = objects.find(key)
                if first is None:
                    return self._call_arguments.not_there(turn, key, came, table)
                found = first
            target, method, decode, encode, plain = found
            owned, outgoing, results = NOTHING_OWNED, NOTHING, _NO_RESULTS
            try:
                if deadline is not FOREVER:
                    _put_in_force(deadline)
                try:
                    by_name: Mapping[str, Any] = NO_NAMES
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
                                arguments, by_name, owned = self._call_arguments.made(turn, method, payload, *left)
                        if arguments is None:
                            arguments, by_name, owned = self._call_arguments.made(
                                turn, method, payload, came, owned, table
                            )
                            if owned.came_home is not None:
                                run = partial(_run_with, owned.came_home, run)
                except (ArgumentError, StaleCapability) as error:
                    return self._call_arguments.refused(turn, method, error, owned)
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
                    if owned is NOTHING_OWNED:
                        return reply
                elif method.result_in_order is not None and (returned := method.result_in_order.returned(result)):
                    reply, results = returned
                else:
                    if method.data_of_result is not None and owned is NOTHING_OWNED:
                        data = method.data_of_result(result)
                        if data is not None:
                            return data
                    outgoing = self.outgoing(turn, target, owned)
                    if method.gives_stream:
                        result = self.produce(method, result, owned, calls.kept, self.caller())
                        result.target = target
                    reply = method.encode_result(result, outgoing)
                    if method.gives_stream:
                        # The stream's from here on.
                        owned = NOTHING_OWNED
                if type(reply) is bytes and outgoing is NOTHING and not calls.kept and leave(owned, results):
                    return reply
                if results is not _NO_RESULTS:
                    outgoing = Outgoing.of(results[0])
                return succeeded(turn, reply, owned, outgoing, calls.kept)
            except BaseException as error:  # noqa: BLE001 - answered; and raised again then, if it must not end here
                if results is not _NO_RESULTS and outgoing is NOTHING:
                    outgoing = Outgoing.of(results[0])
                if type(came) is Inbox:
                    # A signal handler's may have come before it was taken.
                    reaper.close([came.steal()])
                fault = fault_for(error, method, payload)
                return self.failed(turn, method, error, fault, owned, outgoing, calls.kept)
        finally:
            # Whatever the method left.
            if _now_in_force() is not FOREVER:
                _put_in_force(FOREVER)
            objects.running.pop()
            if objects.awaited:
                objects.tell()
            if calls.kept:
                calls.kept = []

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
        if self.inline:
            # This process's, which makes it.
            return self._call_results.outgoing(target, owned, None, self.inline[-1])
        channel = self._channel(turn)
        peer, grant = (channel.peer, channel.grant) if channel is not None else (None, None)
        return self._call_results.outgoing(target, owned, peer, grant)

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
        # What was raised elsewhere, and let through, is in the log there.
        if fault.code is Code.RAISED and fault is not faults.carried_by(error):
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
    # Contexts that are copied meanwhile refer to this, and may outlive the call; its result goes out by the other.
    known_here = came_home.copy()
    try:
        homecoming.here.set(known_here)
        return run(*arguments, **by_name)
    finally:
        homecoming.here.set(before)
        known_here.clear()
