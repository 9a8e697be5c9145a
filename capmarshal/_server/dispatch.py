"""What a record means to a server: bytes and descriptors in, bytes and descriptors out.  No I/O."""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import ArgumentError, StaleCapability
from capmarshal._kernel.native import FOREVER, lib
from capmarshal._protocol import faults as _faults
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code, Fault
from capmarshal._typed.codec import encode_data
from capmarshal._typed.method import methods_of
from capmarshal._typed.table import NOTHING, Incoming, Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._capabilities.space import Peer
    from capmarshal._descriptors.reaper import ClosableFile
    from capmarshal._protocol.wire import Call, Entry, Fail, Reply
    from capmarshal._server.objects import Objects
    from capmarshal._typed.method import Method

T = TypeVar("T")

log = logging.getLogger("capmarshal")

# Further away than that is for ever; keeps what a peer sends within 63 bits.
_FAR = 1 << 62
# Of what a stranger calls a method, this much goes into errors and logs.
_NAME_SHOWN = 64


class _Current(threading.local):
    kept: list[Any] | None = None
    # The badges of the calls in progress, where an entrypoint is served.
    running: list[bytes] | None = None


_current = _Current()


def keep(thing: T) -> T:
    """In a server's method: takes a descriptor out of the call's ownership, so that it stays open when the call ends.

    Args:
        thing: a file, socket or :class:`Descriptor`, an argument or what will be the result.  Yours from here on.

    Returns:
        ``thing``.

    Raises:
        RuntimeError: not called from within a server's method.
    """
    between_calls = _current.running is not None and not _current.running
    if _current.kept is None or between_calls:
        raise RuntimeError("keep() is for server methods: only a call has descriptors to take out of it")
    _current.kept.append(thing)
    return thing


class Answer(NamedTuple):
    """What goes back to the client.

    Attributes:
        id: of the call.
        data: the record.
        numbers: the descriptors to send with it, borrowed from ``results``, ``doors`` and what the server keeps.
        arguments: that the call owned; to be closed when it has run, unless they are results too.
        results: that the call owned; to be closed when the answer is sent.
        kept: slots of descriptors that the server has kept, and may close at any time.
        doors: whose client ends are sent; held until they are.
    """

    id: int
    data: bytes
    numbers: Sequence[int] = ()
    arguments: Sequence[ClosableFile] = ()
    results: Sequence[ClosableFile] = ()
    kept: Sequence[int] = ()
    doors: Sequence[Door] = ()

    def close_arguments(self) -> None:
        """Closes the arguments that are no results too."""
        results = set(map(id, self.results))
        _reaper.close_files([file for file in self.arguments if id(file) not in results])

    def close_results(self) -> None:
        """Ends the call when its arguments are closed already."""
        _reaper.close_files(self.results)

    def close(self) -> None:
        """Ends the call: closes what it owned."""
        arguments, results = self.arguments, self.results
        same = len(arguments) == len(results) and all(map(operator.is_, arguments, results))
        _reaper.close_files(arguments if same or not results else [*arguments, *results])

    def close_here(self) -> None:
        """The same in a forked child, where no reaper's thread must outlive the one that forked.

        Its parent has the same files open, so no close is the last, which could block.
        """
        for file in (*self.arguments, *self.results):
            with contextlib.suppress(Exception):
                file.close()


def fail(call_id: int, code: Code, message: str) -> Answer:
    """An answer that says what went wrong."""
    return Answer(call_id, _wire.pack_fail(call_id, _faults.encode(Fault(code, message))))


class Received(NamedTuple):
    """A record as it came from the kernel.

    Attributes:
        data: the bytes.
        descriptors: to be taken by the dispatcher.
        lost: why some of the descriptors are missing; empty if none are.
        cut: the bytes are not all.
    """

    data: bytes
    descriptors: list[Descriptor]
    lost: str = ""
    cut: bool = False

    def close(self) -> None:
        """Closes what came, where nobody is to have it."""
        _reaper.close_files(self.descriptors)


class HasId(Protocol):
    """A record that is being answered."""

    id: int
    """Of the call."""


class Unanswerable(Exception):  # never leaves the package: the channel is dropped
    """A record so broken that there is no call to answer."""


class Dispatcher:
    """Checks and runs calls: what the capability space knows as the home of an entrypoint's own capabilities.

    Args:
        objects: what can be called.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        # What keep() is told of in calls of data alone, which have nothing that could be closed.
        self._kept: list[Any] = []
        # The thread that runs the calls, while one does.
        self.thread: int | None = None

    def object_behind(self, badge: bytes) -> object | None:
        """The managed object that the badge selects, if any."""
        return self._objects.get(badge)

    def serves_this_thread(self) -> bool:
        """Whether the current thread is the one that runs the calls."""
        return self.thread == threading.get_ident()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Where calls are run: what :meth:`call_data` changes in the thread is put back at the end."""
        token = _deadline.current.set(FOREVER)
        kept_before, _current.kept = _current.kept, self._kept
        running_before, _current.running = _current.running, self._objects.running
        try:
            yield
        finally:
            _current.kept, _current.running = kept_before, running_before
            _deadline.current.reset(token)

    def end_all(self) -> None:
        """No call is in progress any more."""
        self._objects.end_all()

    def call_inline(
        self, badge: bytes, method: bytes, payload: bytes, entries: list[Entry], numbers: list[int]
    ) -> tuple[Reply | Fail, list[Descriptor]]:
        """Runs a call of the serving thread to an object of its own: it would wait for itself otherwise.

        The same rules hold as for any call: arguments are copies, and the call owns its descriptors.
        """
        deadline = _deadline.current.get()
        call = _wire.Call(0, badge, _wire.NO_LIMIT, 0, method, entries, len(numbers), memoryview(payload))
        expired = deadline != FOREVER and time.monotonic_ns() >= deadline
        try:
            answer = self.call(call, _dup_all(numbers), None, None if expired else deadline)
        except Interrupted as interrupted:
            interrupted.answer.close()
            raise interrupted.__cause__ or interrupted from None
        try:
            record = _wire.unpack(answer.data)
            assert isinstance(record, (_wire.Reply, _wire.Fail))  # noqa: S101 - by construction
            return record, _dup_all(answer.numbers)
        finally:
            answer.close()

    def dispatch(self, received: Received, peer: Peer) -> Answer:
        """Answers a record; the descriptors in it are taken.

        Raises:
            Unanswerable: it is no call at all.
        """
        descriptors = received.descriptors
        try:
            record = _wire.unpack(received.data)
        except _wire.Malformed as malformed:
            _reaper.close_files(descriptors)
            if malformed.id is None:
                raise Unanswerable(str(malformed)) from None
            return fail(malformed.id, Code.MALFORMED, str(malformed))
        if not isinstance(record, _wire.Call):
            _reaper.close_files(descriptors)
            raise Unanswerable(f"a {type(record).__name__} where only calls are due")
        refusal = self._refuse(record, received)
        if refusal is not None:
            _reaper.close_files(descriptors)
            return refusal
        return self.call(record, descriptors, peer, _deadline_of(record))

    def _refuse(self, call: Call, received: Received) -> Answer | None:
        came = len(received.descriptors)
        if received.cut:
            return fail(call.id, Code.TOO_BIG, f"the call is larger than the {len(received.data)} bytes of room for it")
        if received.lost:
            lost = call.descriptors - came
            words = f"{lost} of {call.descriptors} descriptors were lost at the server: {received.lost}"
            return fail(call.id, Code.LOST, words)
        if came != call.descriptors:
            return fail(call.id, Code.MALFORMED, f"{call.descriptors} descriptors were announced, {came} came")
        return None

    def call_data(self, record: HasId, key: bytes, payload: bytes, deadline: int) -> bytes | Answer | None:
        """Runs a call whose arguments and result are data alone: what most calls are, without the cost of the others.

        Args:
            record: knows the call's ID, and is asked for it only where that is needed.
            key: badge and method's name.
            payload: the arguments.
            deadline: until when it may take.

        Returns:
            The result's payload; an answer where that is not all; or None: the call has not run, and is one for
            :meth:`dispatch`, which says what is wrong with it, or makes the next of its kind one for this.
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
            try:
                arguments = method.decode_data_arguments(payload)
            except Exception:  # noqa: BLE001 - it will be decoded, and fail, again
                return None
            outgoing = NOTHING
            try:
                result = getattr(target, method.name)(*arguments)
                try:
                    return encode_data(result)
                except Exception:  # noqa: BLE001 - it will be encoded, and fail, again, unless it is no data after all
                    outgoing = Outgoing()
                    payload = method.encode_result(result, outgoing)
                data = _wire.pack_reply(record.id, outgoing.entries, len(outgoing.numbers), payload)
                return _answer(record.id, data, Incoming([], []), outgoing, ran=True)
            except BaseException as error:  # noqa: BLE001 - answered; Interrupted is raised for what must not end here
                return self._failed(record.id, method, error, Incoming([], []), outgoing)
        finally:
            # Whatever the method left.
            if _deadline.current.get() != FOREVER:
                _deadline.current.set(FOREVER)
            objects.running.pop()
            if objects.awaited:
                objects.tell()
            if self._kept:
                self._kept.clear()

    def call(self, call: Call, descriptors: list[Descriptor], peer: Peer | None, deadline: int | None) -> Answer:
        """Runs a call; the descriptors are taken.  It may take until the deadline; None if that has passed."""
        incoming = Incoming(call.entries, descriptors, peer, self)
        if deadline is None:
            incoming.close_rest()
            return fail(call.id, Code.EXPIRED, "the deadline passed before the server came to the call")
        target = self._objects.begin(call.badge)
        if target is None:
            incoming.close_rest()
            return fail(call.id, Code.STALE, "the capability's object is not there: dissolved, or never was")
        token = _deadline.current.set(deadline)
        kept_before, _current.kept = _current.kept, []
        try:
            method = methods_of(type(target)).get(call.method)
            if method is None:
                incoming.close_rest()
                name = call.method[:_NAME_SHOWN].decode("utf-8", "backslashreplace")
                return fail(call.id, Code.UNKNOWN_METHOD, f"{type(target).__qualname__} has no remote method {name!r}")
            if method.is_data:
                self._objects.remember(call.badge, method)
            return self._run(call, method, target, incoming)
        finally:
            _current.kept = kept_before
            _deadline.current.reset(token)
            self._objects.end()

    def _run(self, call: Call, method: Method, target: object, incoming: Incoming) -> Answer:
        try:
            arguments = method.decode_arguments(call.payload, incoming)
        except (ArgumentError, StaleCapability) as error:
            incoming.close_all()
            stale = isinstance(error, StaleCapability)
            return fail(
                call.id, Code.STALE if stale else Code.ARGUMENT, f"{method.where}: {error}" if stale else str(error)
            )
        incoming.close_rest()
        outgoing = Outgoing()
        try:
            payload = method.encode_result(method.run(target, arguments), outgoing)
            # Written is written when the caller has its answer, not when the reaper comes round.
            for writer in incoming.writers:
                if not writer.closed:
                    writer.flush()
        except BaseException as error:  # noqa: BLE001 - answered; Interrupted is raised for what must not end here
            return self._failed(call.id, method, error, incoming, outgoing)
        data = _wire.pack_reply(call.id, outgoing.entries, len(outgoing.numbers), payload, lib.cm_cpu())
        return _answer(call.id, data, incoming, outgoing, ran=True)

    def _failed(
        self,
        call_id: int,
        method: Method,
        error: BaseException,
        incoming: Incoming,
        outgoing: Outgoing,
    ) -> Answer:
        """The answer to a call whose method raised, or returned what cannot be sent.

        Raises:
            Interrupted: ``error`` is to end more than the call.
        """
        fault = _faults.raised(error, method.raises)
        if fault.code is Code.RAISED:
            log.error("%s raised", method.where, exc_info=error)
        answer = _answer(call_id, _wire.pack_fail(call_id, _faults.encode(fault)), incoming, outgoing, ran=False)
        if not isinstance(error, Exception):
            raise Interrupted(answer) from error
        return answer


def _answer(call_id: int, data: bytes, incoming: Incoming, outgoing: Outgoing, *, ran: bool) -> Answer:
    """The end of a call: who owns what it had.

    Args:
        call_id: of the call.
        data: the answer.
        incoming: its arguments.
        outgoing: its results,
        ran: which are sent; or it failed.
    """
    if not (incoming.produced or outgoing.numbers or outgoing.files):
        return Answer(call_id, data)
    arguments, results, kept_slots = incoming.produced, outgoing.files, []
    if outgoing.doors:
        results = [thing for thing in results if thing is not None]
    if _current.kept:
        kept = set(map(id, _current.kept))
        kept_slots = [slot for slot, thing in enumerate(outgoing.files) if id(thing) in kept]
        arguments = [thing for thing in arguments if id(thing) not in kept]
        results = [thing for thing in results if id(thing) not in kept]
    if not ran:
        return Answer(call_id, data, arguments=[_unwritten(file) for file in (*arguments, *results)])
    return Answer(call_id, data, outgoing.numbers, arguments, results, kept_slots, outgoing.doors)


def _unwritten(file: ClosableFile) -> ClosableFile:
    return _Unwritten(file) if isinstance(file, io.BufferedWriter) else file


class _Unwritten:
    """A file of a failed call: its buffer is dropped, since a pipe that nobody reads would block for ever."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        # The file counts as closed then, and flushes no more.
        self._file.raw.close()


class Interrupted(BaseException):  # carries KeyboardInterrupt or SystemExit past the answering of the call
    """A method was ended by something that is no :class:`Exception`, which is the cause of this.

    Attributes:
        answer: for the caller.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _dup_all(numbers: Sequence[int]) -> list[Descriptor]:
    """Copies; on failure, none."""
    copies: list[Descriptor] = []
    try:
        for number in numbers:
            copies.append(Descriptor.dup_of(number))  # noqa: PERF401 - those made must be known when one fails
    except BaseException:
        for copy in copies:
            copy.close()
        raise
    return copies


def _deadline_of(call: Call) -> int | None:
    """Until when the call may take; None if that has passed.

    Both ends read the same clock, unless they are in different time namespaces: a call that seems to come from the
    future just has its time left from now on.
    """
    if call.time_left == _wire.NO_LIMIT:
        return FOREVER
    now = time.monotonic_ns()
    waited = max(now - call.sent_at, 0)
    if waited >= call.time_left:
        return None
    return min(now - waited + call.time_left, _FAR)
