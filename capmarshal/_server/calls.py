"""Running one call: arguments in, method, results out, and the answer to whatever happens on the way.

What a method raises ends its call and nothing else, whatever it is: ``SystemExit`` of a parser of options,
``CancelledError``, a panic of a foreign library.  The caller gets it as an error.  Only what :attr:`Calls.ends_service`
recognises goes on to whoever serves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from msgspec import MsgspecError

from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import ArgumentError, Error, StaleCapability
from capmarshal._kernel.native import FOREVER, lib
from capmarshal._protocol import faults, wire
from capmarshal._protocol.faults import Code, Fault
from capmarshal._protocol.raised import Raised
from capmarshal._server import escapes, keeping
from capmarshal._server.answer import Answer, Interrupted, fail
from capmarshal._typed.codec import BAD_PAYLOAD
from capmarshal._typed.long import as_long
from capmarshal._typed.method import methods_of
from capmarshal._typed.table import NOTHING, Incoming, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._protocol.wire import Call
    from capmarshal._server.clients import Peer
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method

# Of what a stranger calls a method, this much goes into errors.
NAME_SHOWN = 64


class Turn(Protocol):
    """The record that is being answered."""

    id: int
    """Of the call."""
    slot: int
    """Of the channel that it came by."""


class Calls:
    """Runs calls of an entrypoint's objects, one at a time and one within the other.

    Args:
        objects: what can be called.
        journal: where it is written what methods raise.

    Attributes:
        thread: that runs the calls, while one does.
        ends_service: whether something that a method raised, and that is no :class:`Exception`, is to end the service.
        peer_of: who is in a slot, for the journal.
    """

    def __init__(self, objects: Objects, journal: Journal) -> None:
        self._objects = objects
        self._journal = journal
        self._calls = keeping.InProgress(objects.running)
        self.thread: int | None = None
        self.ends_service: Callable[[BaseException], bool] = escapes.nothing
        self.peer_of: Callable[[int], Peer | None] = lambda _slot: None

    def serve(self, run: Callable[[], None]) -> None:
        """Has ``run`` run calls: what that changes in the thread is put back at the end."""
        deadline_before, calls_before, thread_before = _deadline.current.get(), keeping.current.calls, self.thread
        # No context manager, whose end Ctrl-C can keep from beginning.
        try:
            _deadline.current.set(FOREVER)
            keeping.current.calls = self._calls
            self.thread = threading.get_ident()
            run()
        finally:
            self.thread = thread_before
            keeping.current.calls = calls_before
            _deadline.current.set(deadline_before)

    def end_all(self) -> None:
        """Forgets the calls in progress: Ctrl-C may have kept some from ending, and none goes on."""
        self._objects.end_all()
        self._calls.kept.clear()

    def run_data(self, turn: Turn, key: bytes, payload: bytes, deadline: int) -> Payload | Answer | None:
        """Runs a call whose arguments and result are data alone: what most calls are, without the cost of the others.

        Args:
            turn: knows the call's ID and slot, and is asked only where they are needed.
            key: badge and method's name.
            payload: the arguments.
            deadline: until when it may take.

        Returns:
            The result's payload; an answer where that is not all; or None: the call has not run, and is one for
            :meth:`run`, which says what is wrong with it, or makes the next of its kind one for this.
        """
        objects = self._objects
        # Before it is looked up: see Objects.
        objects.running.append(key)
        try:
            found = objects.data_methods.get(key)
            if found is None:
                return None
            target, method = found
            if deadline != FOREVER:
                _deadline.current.set(deadline)
            outgoing = NOTHING
            try:
                try:
                    arguments = method.decode_data_arguments(payload)
                except Exception as error:
                    if _is_bad(payload, method, error):
                        return None
                    # A signal handler's: it ends the call as if the method had raised it.
                    raise
                result = getattr(target, method.name)(*arguments)
                try:
                    return method.encode_data_result(result)
                except Exception:
                    outgoing = Outgoing(serving=True)
                    # Says what is wrong with the result; where that is nothing, a signal handler raised something.
                    method.encode_result(result, outgoing)
                    raise
            except BaseException as error:  # noqa: BLE001 - answered; Interrupted is raised for what must not end here
                peer = self.peer_of(turn.slot)
                fault = _fault_for(error, method, payload)
                return self._failed(turn.id, peer, method, error, fault, Incoming([], DescriptorList()), outgoing, 0)
        finally:
            # Whatever the method left.
            if _deadline.current.get() != FOREVER:
                _deadline.current.set(FOREVER)
            objects.running.pop()
            if objects.awaited:
                objects.tell()
            if self._calls.kept:
                self._calls.kept.clear()

    def run(self, call: Call, incoming: Incoming, peer: Peer | None, deadline: int | None) -> Answer:
        """Runs a call, whatever its arguments are.

        Args:
            call: the record.
            incoming: its arguments, taken.
            peer: whose it is; None for a call that a method made inline.
            deadline: until when it may take; None if that has passed.

        Raises:
            Interrupted: the service is to end.
        """
        if deadline is None:
            incoming.close_rest()
            return fail(call.id, Code.EXPIRED, "the deadline passed before the server came to the call")
        target = self._objects.begin(call.badge, call.method)
        if target is None:
            incoming.close_rest()
            return fail(call.id, Code.STALE, "the capability's object is not there: dissolved, or never was")
        deadline_before = _deadline.current.get()
        # What is kept in a call that this one is made within is not this one's.
        kept_before = len(self._calls.kept)
        try:
            _deadline.current.set(deadline)
            method = methods_of(type(target)).get(call.method)
            if method is None:
                incoming.close_rest()
                name = call.method[:NAME_SHOWN].decode("utf-8", "backslashreplace")
                words = (
                    f"{type(target).__qualname__} has no remote method {name!r}: the server may be older, or another"
                )
                return fail(call.id, Code.UNKNOWN_METHOD, words)
            if method.is_data:
                self._objects.remember(call.badge, method)
            return self._run(call, method, target, incoming, peer, kept_before)
        finally:
            del self._calls.kept[kept_before:]
            _deadline.current.set(deadline_before)
            self._objects.end()

    def _run(
        self,
        call: Call,
        method: Method,
        target: object,
        incoming: Incoming,
        peer: Peer | None,
        kept_before: int,
    ) -> Answer:
        outgoing = Outgoing(serving=True)
        try:
            try:
                by_position, by_name = method.decode_arguments(call.payload, incoming)
            except (ArgumentError, StaleCapability) as error:
                incoming.close_all()
                if _is_strange(error):
                    self._journal.error(
                        peer, f"{method.where}, arguments", "%s: making its arguments", method.where, exc_info=error
                    )
                return _refused(call.id, error)
            finally:
                incoming.close_rest()
            result = getattr(target, method.name)(*by_position, **by_name)
            long = as_long(result) if method.result_is_data else None
            payload = method.encode_result(result, outgoing) if long is None else long.start
            if incoming.writers:
                keeping.write_out(incoming, self._calls.kept[kept_before:])
            data = wire.pack_reply(call.id, outgoing.entries, len(outgoing.numbers), payload, lib.cm_cpu())
            answer = keeping.succeeded(call.id, data, incoming, outgoing, self._calls.kept[kept_before:])
            return answer if long is None else answer._replace(rest=long.end)
        except BaseException as error:  # noqa: BLE001 - answered; Interrupted is raised for what must not end here
            fault = _fault_for(error, method, call.payload)
            return self._failed(call.id, peer, method, error, fault, incoming, outgoing, kept_before)

    def _failed(
        self,
        call_id: int,
        peer: Peer | None,
        method: Method,
        error: BaseException,
        fault: Fault,
        incoming: Incoming,
        outgoing: Outgoing,
        kept_before: int,
    ) -> Answer:
        """The answer to a call whose method raised, or was given or returned what is no good.

        Raises:
            Interrupted: ``error`` is to end the service.
        """
        if fault.code is Code.RAISED:
            kind = f"{method.where}: {type(error).__qualname__}"
            self._journal.error(peer, kind, "%s raised", method.where, exc_info=error)
        data = wire.pack_fail(call_id, faults.encode(fault))
        answer = keeping.failed(call_id, data, incoming, outgoing, self._calls.kept[kept_before:])
        if not isinstance(error, Exception) and self.ends_service(error):
            raise Interrupted(answer) from error
        return answer


def _is_bad(payload: bytes, method: Method, error: Exception) -> bool:
    """Whether a payload cannot be decoded, for which it was tried already, and this was raised."""
    if isinstance(error, MsgspecError) and error.__cause__ is None:
        return True
    # The application's own code may have raised it: a __post_init__, which does so again, or a signal handler.
    try:
        method.decode_data_arguments(payload)
    except Exception:  # noqa: BLE001 - it is decoded for the third time where it is said what is wrong
        return True
    return False


def _is_strange(error: BaseException) -> bool:
    """Whether what arguments were refused for may be no fault of theirs: raised by a signal handler, or by mistake."""
    while error.__cause__ is not None:
        error = error.__cause__
    return not isinstance(error, (*BAD_PAYLOAD, Error))


def _refused(call_id: int, error: ArgumentError | StaleCapability) -> Answer:
    """The answer to a call whose arguments are not what the interface says."""
    if isinstance(error, StaleCapability):
        return fail(call_id, Code.STALE, f"arguments: {error}")
    return fail(call_id, Code.ARGUMENT, str(error))


def _fault_for(error: BaseException, method: Method, payload: Buffer) -> Fault:
    """What a caller is told of an error, also where the error's own class raises when it is asked."""
    try:
        return faults.raised(error, method.raises, bytes(payload))
    except BaseException as worse:  # noqa: BLE001 - of __str__, say; the first error is what the call ended by
        words = f"(its text cannot be had: {type(worse).__qualname__})"
        return Fault(Code.RAISED, "", Raised([type(error).__qualname__], words))
