"""Calls that are logged at their server: see :mod:`capmarshal._kernel.call_log`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capmarshal._kernel.call_log import CANCELLED, took
from capmarshal._protocol import faults, wire
from capmarshal._server.answer import Answer
from capmarshal._server.call_arguments import count_of
from capmarshal._server.calls import Calls, stays
from capmarshal._server.handler import Handler

if TYPE_CHECKING:
    from capmarshal._descriptors.inbox import Inbox
    from capmarshal._server.answer import Turn
    from capmarshal._server.call_arguments import Encoded
    from capmarshal._server.calls import Leave
    from capmarshal._server.clients import Peer
    from capmarshal._server.journal import Journal
    from capmarshal._typed.in_order import Results
    from capmarshal._typed.incoming import Incoming, Owned
    from capmarshal._typed.long import Payload


class LoggedCalls(Calls):
    """As :class:`Calls`, and writes a line about each call that it has run."""

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
        """As :meth:`Calls.run`."""
        where, began = self.named(key), time.monotonic_ns()
        peer, size = self.served.peer_of(turn.slot), memoryview(payload).nbytes
        descriptors, left = count_of(came), 0

        def leave_counted(owned: Owned, results: Results) -> bool:
            nonlocal left
            left = len(results[0])
            return leave(owned, results)

        answer = super().run(turn, key, payload, deadline, came, leave_counted, table)
        # What is to run beside others is logged when it ends.
        if not isinstance(answer, Handler):
            log_call(self._journal, peer, where, began, (size, descriptors), answer, left)
        return answer


def log_call(
    journal: Journal,
    peer: Peer | None,
    where: str,
    began: int,
    came: tuple[int, int],
    answer: Payload | Answer,
    left: int = 0,
    *,
    cancelled: bool = False,
) -> None:
    """Writes a line about a call that has just ended, but for the sending of its answer.

    Args:
        journal: of the entrypoint.
        peer: whose it was; None for one that a method made inline.
        where: its method.
        began: when it did; CLOCK_MONOTONIC, nanoseconds.
        came: bytes and descriptors.
        answer: the result's payload, or whatever else becomes of it.
        left: descriptors that leave with a payload.
        cancelled: its method has ended because it was told to, and nobody wants the answer.
    """
    time_taken = took(began)
    ended, size, descriptors = _described(answer) if isinstance(answer, Answer) else ("ok", len(answer), left)
    if cancelled:
        ended, size = CANCELLED, 0
    journal.call(
        peer,
        "ran %s: %s in %s; bytes: %d in, %d out; descriptors: %d in, %d out",
        where,
        ended,
        time_taken,
        came[0],
        size,
        came[1],
        descriptors,
    )


def _described(answer: Answer) -> tuple[str, int, int]:
    """How a call has ended, and the size of its answer in bytes and descriptors."""
    record = wire.unpack(answer.data + answer.rest)
    if isinstance(record, wire.Reply):
        return "ok", len(record.payload), len(answer.numbers)
    assert isinstance(record, wire.Fail)  # noqa: S101 - by construction
    return faults.name_in(record.payload), len(record.payload), 0
