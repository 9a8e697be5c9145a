"""A call whose method is awaited: a task with a context of its own, which ends with its client, or its deadline.

What a method raises ends its call and nothing else, as everywhere: also a cancellation that nobody asked for, which an
event loop would take for its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
import weakref
from typing import TYPE_CHECKING, Any

from capmarshal._async_server.driver import ends_all
from capmarshal._capabilities import homecoming
from capmarshal._descriptors import reaper
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER
from capmarshal._protocol import faults, wire
from capmarshal._server import ownership
from capmarshal._server.answer import Answer
from capmarshal._server.call_results import fault_for, succeeded
from capmarshal._server.caller import caller_by
from capmarshal._server.calls import NO_NAMES, NOTHING_OWNED, Calls
from capmarshal._server.handler import Handler
from capmarshal._typed.outgoing import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capmarshal._async_server.driver import Driver
    from capmarshal._server.answer import Turn
    from capmarshal._server.call_arguments import Encoded
    from capmarshal._server.caller import Caller
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.concurrency import Concurrency
    from capmarshal._typed.incoming import Owned
    from capmarshal._typed.method import Method

# Nanoseconds by which clocks of event loops differ, of which one tells a client that time is up.
_COARSE = 2_000_000

# The call whose method runs here: in its task, and in those that it has started.
current: contextvars.ContextVar[AwaitedCall | None] = contextvars.ContextVar("capmarshal.call", default=None)


class AwaitedCall(Handler):
    """One such call.

    Args:
        calls: that it is one of.
        turn: that it came in.
        key: badge and method's name.
        target: whose method is called.
        method: of the interface.
        payload: of the call.
        deadline: until when it may take.
        owned: of its arguments, what the call closes.
        arguments: by position.
        by_name: those that are passed so.
        descriptors: how many came.

    Attributes:
        key: as given.
        runs: it has not ended.
        peer: whose it is.
        slot: of the channel that it came by.
    """

    __slots__ = (
        "_arguments",
        "_began",
        "_by_name",
        "_calls",
        "_cut_off",
        "_deadline",
        "_method",
        "_outgoing",
        "_owned",
        "_payload",
        "_scope",
        "_target",
        "_told",
        "_whose",
        "key",
        "peer",
        "runs",
        "slot",
    )

    def __init__(
        self,
        calls: RunningCalls,
        turn: Turn,
        key: bytes,
        target: Any,
        method: Method,
        payload: Encoded,
        deadline: int,
        owned: Owned,
        arguments: Sequence[Any],
        by_name: Mapping[str, Any],
        descriptors: int,
    ) -> None:
        super().__init__(turn.id, len(payload), descriptors)
        self.slot = turn.slot
        self.peer = calls.served.peer_of(turn.slot)
        self.key = key
        self.runs = True
        self._calls, self._whose = calls, weakref.ref(calls)
        self._target, self._method = target, method
        self._payload = payload
        self._deadline = deadline
        self._owned, self._arguments, self._by_name = owned, arguments, by_name
        self._outgoing = NOTHING
        self._began = time.monotonic_ns()
        self._scope = calls.driver.scope()
        self._cut_off = False
        # When its client gave it up, or the service its end; FOREVER: nobody did.
        self._told = FOREVER

    def _caller(self) -> Caller:
        # Its channel may have ended; who that belongs to it is told as long as it runs.
        return caller_by(self._calls.concurrency.handlers.get(self))

    def is_of(self, calls: Calls) -> bool:
        """Whether it is one of these."""
        return self._whose() is calls

    @property
    def where(self) -> str:
        """Interface and method, for people."""
        return self._method.where

    def start(self) -> None:
        """Has its method run, in a task of its own."""
        driver, method = self._calls.driver, self._method
        kept = driver.begin(self, method.where) if method.begins_at_once else driver.run(self._run, method.where)
        # A task factory may have it run at once, and to its end.
        if self.runs:
            self.kept = kept

    async def do(self) -> None:
        """Has its method run, in a task that runs others afterwards: leaves nothing in its context."""
        try:
            await self._run()
        finally:
            _deadline.current.set(FOREVER)
            ownership.current.set(None)
            current.set(None)
            homecoming.here.set(None)

    def over(self) -> None:
        """As of any job: how it has ended is told by what it does."""

    def cancel(self) -> None:
        """Tells its method to end: nobody wants its answer any more.  Does nothing the second time."""
        self._told = min(self._told, time.monotonic_ns())
        # Its event loop may be closed.
        with contextlib.suppress(RuntimeError):
            self._scope.cancel()

    def insist(self) -> None:
        """Tells its method to end, also where it was told before: the service ends, and nobody is answered."""
        self._cut_off = True
        self._told = min(self._told, time.monotonic_ns())
        self._calls.driver.insist(self._scope)

    def give_back_place(self) -> None:
        """Its method only waits from here on."""
        if self.runs:
            self._calls.concurrency.give_back(self)

    def close(self) -> None:
        """Closes all that came with it, where it is not started, and forgets it."""
        self._calls.forget(self)
        reaper.close(self._owned.produced)
        self._let_go()

    def _let_go(self) -> None:
        """Keeps nothing that was the call's: contexts of its task refer to it, whoever has copied them, and it to them.

        Until the garbage collector comes, which counts objects, and not what is in them.  Nor the server: a timer of a
        method's, say, that was cancelled has its context until it would have rung.
        """
        self.runs = False
        del self._calls, self._target
        if self._owned.came_home is not None:
            self._owned.came_home.clear()
        self.kept, self._payload = None, b""
        self._arguments, self._by_name, self._owned, self._outgoing = (), NO_NAMES, NOTHING_OWNED, NOTHING

    async def _run(self) -> None:
        kept = ownership.InProgress(self._caller)
        if self._deadline != FOREVER:
            self._calls.driver.end_after(_deadline.seconds_until(self._deadline), self._scope)
        answer: Answer | bytes | None = None
        cut_off = cancelled = False
        try:
            with self._scope:
                # Not before: a timer that is cancelled keeps the context in which it was set until it would have rung.
                if _deadline.current.get() != self._deadline:
                    _deadline.current.set(self._deadline)
                ownership.current.set(kept)
                current.set(self)
                if self._owned.came_home is not None:
                    homecoming.here.set(self._owned.came_home)
                # Before its first step, whatever its method does then.
                if not self._scope.cancel_called:
                    method = getattr(self._target, self._method.name)
                    # To pass no names costs as much as the call.
                    coming = method(*self._arguments, **self._by_name) if self._by_name else method(*self._arguments)
                    result = coming if self._method.gives_stream else await coming
                    answer = self._succeeded(result, kept.kept)
            if answer is None:
                answer, cut_off = self._late(kept.kept), self._cut_off
                # A client that counts the time, too, gives it up at its deadline.
                cancelled = self._told < self._deadline - _COARSE
        except BaseException as error:
            if ends_all(error, self._calls.driver):
                self._end(self._late(kept.kept), kept, cut_off=True, cancelled=True)
                raise
            fault = fault_for(error, self._method, self._payload)
            answer = self._calls.failed(self, self._method, error, fault, self._owned, self._outgoing, kept.kept)
            # Whatever it makes of its cancellation.
            cut_off = self._calls.driver.told_to_end()
        self._end(answer, kept, cut_off=cut_off, cancelled=cancelled)

    def _succeeded(self, result: Any, kept: Sequence[object]) -> Answer | bytes:
        """The answer to it when its method has returned, or the payload of a reply, where there is nothing else.

        Raises:
            Exception: what is wrong with the result.
        """
        method = self._method
        if method.result_is_data:
            try:
                payload = method.encode_data_result(result)
                if type(result) not in method.known_results:
                    self._calls.look_at(self, method, result)
                if type(payload) is bytes and self._owned is NOTHING_OWNED:
                    return payload
            except Exception:
                # Says what is wrong with it; where that is nothing, a signal handler raised something.
                self._outgoing = self._calls.outgoing(self, self._target, self._owned)
                method.encode_result(result, self._outgoing)
                raise
        else:
            if method.data_of_result is not None and self._owned is NOTHING_OWNED:
                data = method.data_of_result(result)
                if data is not None:
                    return data
            # Before there is anything in it, which is closed whatever happens.
            self._outgoing = self._calls.outgoing(self, self._target, self._owned)
            if method.gives_stream:
                result = self._calls.produce(method, result, self._owned, kept, self._caller())
                result.target = self._target
            payload = method.encode_result(result, self._outgoing)
            if method.gives_stream:
                # The stream's from here on.
                self._owned = NOTHING_OWNED
        return succeeded(self, payload, self._owned, self._outgoing, kept)

    def _late(self, kept: Sequence[object]) -> Answer:
        """The answer to it when its method was told to end and has: for who listens still, time was up."""
        fault = faults.Fault(faults.Code.LATE, "the deadline passed before its method had ended")
        data = wire.pack_fail(self.id, faults.encode(fault))
        return ownership.failed(self.id, data, self._owned, NOTHING, kept)

    def _end(self, answer: Answer | bytes, kept: ownership.InProgress, *, cut_off: bool, cancelled: bool) -> None:
        """Ends the call; its answer goes to whoever wants it still."""
        kept.end()
        kept.kept.clear()
        calls = self._calls
        self._let_go()
        calls.end(self, answer, self._began, cut_off=cut_off, cancelled=cancelled)


class RunningCalls(Calls):
    """The calls of an entrypoint, as those that run know them.

    Attributes:
        driver: of the event loop in which they run, while there is one.
        concurrency: counts them.
        escaped: told of what is to end the service.
    """

    driver: Driver
    concurrency: Concurrency
    escaped: Callable[[BaseException], None]

    def _peer(self, turn: Turn) -> Peer | None:
        return turn.peer if isinstance(turn, AwaitedCall) else super()._peer(turn)

    def _channel(self, turn: Turn) -> Channel | None:
        # Its channel may have ended, and another have its slot.
        return self.concurrency.handlers.get(turn) if isinstance(turn, AwaitedCall) else super()._channel(turn)

    def forget(self, call: AwaitedCall) -> None:
        """A call is over, started or not."""
        self._objects.end(call.key)

    def end(self, call: AwaitedCall, answer: Answer | bytes, began: int, *, cut_off: bool, cancelled: bool) -> None:
        """Ends a call whose method has.

        Args:
            call: whose method that is.
            answer: goes to whoever wants it still; or the payload of a reply.
            began: when it did.
            cut_off: nobody is to have it, as the service ends.
            cancelled: the method has ended for that, or because its client has given the call up.
        """
        if call not in self.concurrency.handlers:
            # It was forgotten with its event loop, and ended as that was thrown away.
            if isinstance(answer, Answer):
                answer.close()
            return
        self.forget(call)
        self.note_end(call, answer, began, cancelled=cancelled)
        escape = answer.escape.pop() if isinstance(answer, Answer) and answer.escape else None
        self.concurrency.end(call, answer, cut_off=cut_off)
        if escape is not None:
            self.escaped(escape)

    def note_end(self, call: AwaitedCall, answer: Answer | bytes, began: int, *, cancelled: bool) -> None:
        """Does nothing: a call has ended, see :meth:`end`."""


def cut_off() -> None:
    """Has the call that runs here end, and its client hear that it has no answer."""
    call = current.get()
    if call is not None:
        call.insist()


def waits() -> None:
    """Has the call that runs here give its place back: it only waits from here on."""
    call = current.get()
    if call is not None:
        call.give_back_place()
