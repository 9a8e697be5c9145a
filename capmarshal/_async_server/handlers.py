"""Calls whose methods are awaited: how each begins, and what becomes of its answer."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from capmarshal._async_server.awaited_call import AwaitedCall, RunningCalls, cut_off, waits
from capmarshal._async_server.streams import AwaitedProducer
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel.errors import ArgumentError, StaleCapability
from capmarshal._server.call_arguments import count_of
from capmarshal._server.call_results import fault_for
from capmarshal._server.calls import NO_NAMES, NOTHING_OWNED, Leave, stays
from capmarshal._server.logged_calls import LoggedCalls, log_call
from capmarshal._server.streams import END_FAILED, class_for
from capmarshal._typed.incoming import Incoming, Owned
from capmarshal._typed.outgoing import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._capabilities.door import Home
    from capmarshal._server.answer import Answer, Turn
    from capmarshal._server.call_arguments import Encoded
    from capmarshal._server.caller import Caller
    from capmarshal._server.handler import Handler
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method


class AwaitingCalls(RunningCalls):
    """As :class:`Calls`, of methods that are awaited, beside others.

    Attributes:
        loop: the event loop in which they run, where it is asyncio's.
        producers: the streams that are there.
    """

    loop: Any = None

    def __init__(self, objects: Objects, journal: Journal, home: Callable[[], Home | None]) -> None:
        super().__init__(objects, journal, home)
        # Of those that somebody has still.
        self.producers: weakref.WeakSet[AwaitedProducer] = weakref.WeakSet()

    def run(
        self,
        turn: Turn,
        key: bytes,
        payload: Encoded,
        deadline: int,
        came: Inbox | Incoming | None = None,
        leave: Leave = stays,  # noqa: ARG002 - nothing leaves before a method has ended
        table: bytes | None = None,
    ) -> Payload | Answer | Handler:
        """As :meth:`Calls.run`; who will have the answer, where the method is to be run."""
        # Before it is looked up: see Objects.
        self._objects.running.append(key)
        handler: AwaitedCall | None = None
        try:
            found = self._objects.known.get(key) or self._objects.find(key)
            if found is None:
                return self._call_arguments.not_there(turn, key, came, table)
            target, method, decode, _, _ = found
            owned, count = NOTHING_OWNED, 0
            try:
                by_name = NO_NAMES
                if came is None and decode is not None:
                    try:
                        arguments = decode(payload)
                    except Exception as error:  # noqa: BLE001 - said, or raised again, there
                        nothing = Incoming([], DescriptorList())
                        arguments, by_name = method.decode_arguments_after(error, payload, nothing)
                else:
                    owned, count = Owned(), count_of(came)
                    arguments, by_name, incoming = self._call_arguments.made(turn, method, payload, came, owned, table)
                    owned.take(incoming)
                handler = AwaitedCall(
                    self, turn, key, target, method, payload, deadline, owned, arguments, by_name, count
                )
            except (ArgumentError, StaleCapability) as error:
                return self._call_arguments.refused(turn, method, error, owned)
            except BaseException as error:  # noqa: BLE001 - a signal handler's; answered
                if type(came) is Inbox:
                    reaper.close([came.steal()])
                return self.failed(turn, method, error, fault_for(error, method, payload), owned, NOTHING, ())
            return handler
        finally:
            if handler is None:
                self._objects.end(key)

    def produce(self, method: Method, result: Any, owned: Owned, kept: Sequence[object], caller: Caller) -> Any:
        """As :meth:`Calls.produce`."""
        failed = partial(self._journal.error, None, f"{method.where}, end", END_FAILED, method.where)
        driver = self.driver
        made = class_for(method, AwaitedProducer)(
            method, result, owned, kept, self.served.shares, caller, lambda: driver, failed, cut_off, waits
        )
        self.producers.add(made)
        return made

    def forget_all(self) -> None:
        """Nothing runs any more: also what the event loop has thrown away before it had begun is over."""
        self.concurrency.forget_all()
        self.end_all()


class LoggedAwaitingCalls(LoggedCalls, AwaitingCalls):
    """As :class:`AwaitingCalls`, and writes a line about each call that has ended, or was not begun."""

    def note_end(self, call: AwaitedCall, answer: Answer | bytes, began: int, *, cancelled: bool) -> None:
        """Writes it."""
        came = call.size, call.descriptors
        log_call(self._journal, call.peer, call.where, began, came, answer, cancelled=cancelled)
