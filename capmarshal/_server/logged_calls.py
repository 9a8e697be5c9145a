"""Calls that are logged at their server: see :mod:`capmarshal._kernel.call_log`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capmarshal._kernel.call_log import took
from capmarshal._protocol import faults, wire
from capmarshal._server.answer import Answer, Interrupted
from capmarshal._server.calls import NAME_SHOWN, Calls
from capmarshal._typed.method import methods_of

if TYPE_CHECKING:
    from capmarshal._protocol.wire import Call
    from capmarshal._server.calls import Turn
    from capmarshal._server.clients import Peer
    from capmarshal._typed.long import Payload
    from capmarshal._typed.table import Incoming


class LoggedCalls(Calls):
    """As :class:`Calls`, and writes a line about each call that it has run."""

    def run_data(self, turn: Turn, key: bytes, payload: bytes, deadline: int) -> Payload | Answer | None:
        """As :meth:`Calls.run_data`."""
        found, began = self._objects.data_methods.get(key), time.monotonic_ns()
        peer = self.peer_of(turn.slot)
        answer: Payload | Answer | None = None
        try:
            answer = super().run_data(turn, key, payload, deadline)
        except Interrupted as interrupted:
            answer = interrupted.answer
            raise
        finally:
            # What was not run is not logged: run() comes next.
            if found is not None and answer is not None:
                self._log(peer, found[1].where, began, (len(payload), 0), answer)
        return answer

    def run(self, call: Call, incoming: Incoming, peer: Peer | None, deadline: int | None) -> Answer:
        """As :meth:`Calls.run`."""
        target, began, came = self._objects.get(call.badge), time.monotonic_ns(), len(call.payload)
        method = methods_of(type(target)).get(call.method) if target is not None else None
        # A name that no method has is a stranger's own words.
        where = method.where if method is not None else ascii(call.method[:NAME_SHOWN])
        answer: Answer | None = None
        try:
            answer = super().run(call, incoming, peer, deadline)
        except Interrupted as interrupted:
            answer = interrupted.answer
            raise
        finally:
            if answer is not None:
                self._log(peer, where, began, (came, call.descriptors), answer)
        return answer

    def _log(self, peer: Peer | None, where: str, began: int, came: tuple[int, int], answer: Payload | Answer) -> None:
        """Writes a line about a call that has just ended, but for the sending of its answer."""
        time_taken = took(began)
        ended, size, descriptors = _described(answer)
        self._journal.call(
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


def _described(answer: Payload | Answer) -> tuple[str, int, int]:
    """How a call has ended, and the size of its answer in bytes and descriptors."""
    if not isinstance(answer, Answer):
        return "ok", len(answer), 0
    record = wire.unpack(answer.data + answer.rest)
    if isinstance(record, wire.Reply):
        return "ok", len(record.payload), len(answer.numbers)
    assert isinstance(record, wire.Fail)  # noqa: S101 - by construction
    return faults.name_in(record.payload), len(record.payload), 0
