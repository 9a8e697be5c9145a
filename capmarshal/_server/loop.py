"""The server's loop: one thread, one epoll set; a reply and the wait for the next record in one crossing into C.

It trusts no flag of a socket, for the client made both ends of the channel and may have kept a copy: nothing here
waits for a particular client.  What cannot be sent for a reason of the client's making ends its channel.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors import inbox as _inbox
from capmarshal._descriptors import private as _private
from capmarshal._descriptors import reaper as _reaper
from capmarshal._kernel.errors import KernelError, TableFull, check, error_for, in_flight_limit
from capmarshal._kernel.native import DESCRIPTORS_MAX, FOREVER, NULL, ffi, lib
from capmarshal._kernel.polling import poll_nanoseconds
from capmarshal._kernel.waiting import IN_FLIGHT_PATIENCE
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code
from capmarshal._server import doorkeeper as _doorkeeper
from capmarshal._server.answer import Answer, Interrupted, fail
from capmarshal._server.answers import AWAITS_GO, Outbox
from capmarshal._server.channels import Clients
from capmarshal._server.dispatch import Received, Unanswerable
from capmarshal._server.doorkeeper import Doorkeeper
from capmarshal._server.journal import log
from capmarshal._server.reception import Reception

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.private import Private
    from capmarshal._server.channels import Client
    from capmarshal._server.dispatch import Dispatcher

# Looked up once: an attribute of cffi's is 40 ns, and these are wanted in each turn.
_cm_reply_wait, _CM_WHOLE, _CM_DATA, _CM_CALL_KEY = lib.cm_reply_wait, lib.CM_WHOLE, lib.CM_DATA, lib.CM_CALL_KEY

# Slot of its own wake-up.
_WAKE = 1

# Nanoseconds between two tries to send what there is no room for in flight.
_RETRY = 5_000_000
# And how long an answer may stand still while its peer has more unread than it may.
_STILL = 1_000_000_000


class Server:
    """Serves one door.

    Args:
        door: the server's end, taken.
        dispatcher: what runs the calls.
        label: of the entrypoint, for the log.
        max_bytes: of a call's or a result's record.
        max_descriptors: of a call or a result.

    Raises:
        TableFull, KernelError: the caller still owns ``door``.
    """

    def __init__(
        self, door: Private, dispatcher: Dispatcher, label: str, *, max_bytes: int, max_descriptors: int
    ) -> None:
        self._dispatcher = dispatcher
        self._label = label
        self._turn = ffi.new("struct cm_turn *")
        self._turn.poll = poll_nanoseconds
        self._inbox = _inbox.Inbox(within=self._turn)
        self._clients = clients = Clients(self._turn, max_bytes)
        dispatcher.peer_of = lambda slot: client.peer if (client := clients.get(slot)) is not None else None
        self._reception = Reception(self._clients, max_bytes, max_descriptors)
        self._max_bytes = max_bytes
        self._max_descriptors = max_descriptors
        # Until when answers may be sent, once it is told to end.
        self._stop_at: int | None = None
        # Slots whose answer the kernel refuses because too many descriptors are in flight; when to look again.
        self._refused: set[int] = set()
        self._retry_at = FOREVER
        # The payload of the reply that is sent with the next turn.
        self._reply: bytes | None = None
        self._epoll = _private.make_epoll_set()
        self._wake = _private.make_event()
        self._turn.epoll = self._epoll.number
        self._doorkeeper = Doorkeeper(door, self._clients, self._make_room, label)
        try:
            check(self._clients.watch(_doorkeeper.SLOT, door.number), "watching the door")
            check(self._clients.watch(_WAKE, self._wake.number), "watching for the end")
        except BaseException:
            self._wake.close()
            self._epoll.close()
            raise

    @property
    def channels(self) -> int:
        """How many channels are open."""
        return len(self._clients)

    def stop(self, deadline: int) -> None:
        """Has :meth:`run` return when the call in progress is answered.  From any thread."""
        self._stop_at = deadline
        with _private.lock:
            if self._wake.number >= 0:
                os.eventfd_write(self._wake.number, 1)

    def close(self) -> None:
        """Closes the door and all channels; nobody runs it any more."""
        for slot in self._clients.slots():
            self._forget(slot)
        with _private.lock:
            self._wake.close()
        self._epoll.close()
        self._doorkeeper.close()

    def forget_parents_own(self) -> None:
        """In a forked child: the numbers in C's memory are nobody's any more, or somebody else's."""
        self._turn.epoll, self._turn.n_slots, self._turn.taken = -1, 0, 0

    def run(self) -> None:
        """Serves until it is stopped, or until this process turns out to be a forked child.

        Raises:
            KeyboardInterrupt, SystemExit: raised in a method or a signal handler; it may be run again.
        """
        try:
            with self._dispatcher.serving():
                while self._stop_at is None and self._epoll.number >= 0:
                    self._turn_once()
                    if self._retry_at < FOREVER and time.monotonic_ns() >= self._retry_at:
                        self._look_after()
        finally:
            if self._epoll.number >= 0:
                self._tidy()

    def _tidy(self) -> None:
        """Leaves nothing half done, also where Ctrl-C came between two steps: nobody waits for what will not come."""
        turn = self._turn
        if self._reply is not None:
            self._deliver_reply()
        self._dispatcher.end_all()
        if turn.taken:
            self._forget(turn.taken)
            turn.taken = 0
        _reaper.close([self._inbox.steal()])
        self._doorkeeper.tidy()

    def _turn_once(self) -> None:
        """Sends the reply that is due and handles one event."""
        turn, reply = self._turn, self._reply
        if reply is None:
            event = _cm_reply_wait(turn, NULL, 0, self._retry_at)
        else:
            size = len(reply)
            # Ctrl-C raises where a call ends: not between this and the next, after which C knows whether it is sent.
            self._reply = None
            event = _cm_reply_wait(turn, reply, size, self._retry_at)
        if event >= _CM_DATA:
            start, bytes_in = turn.payload, self._inbox.bytes
            key, payload = bytes_in[_CM_CALL_KEY:start], bytes_in[start : self._inbox.struct.size]
            try:
                answer = self._dispatcher.call_data(turn, key, payload, FOREVER if event == _CM_DATA else turn.deadline)
            except Interrupted as interrupted:
                self._end_call(turn.slot, interrupted.answer)
                raise interrupted.__cause__ or interrupted from None
            except Exception:  # noqa: BLE001 - said there
                self._fault(turn.slot)
                return
            if isinstance(answer, bytes):
                self._reply = answer
            else:
                self._end_call(turn.slot, answer)
        elif event == _CM_WHOLE:
            self._call_whole(turn.slot)
            turn.taken = 0
        elif event == lib.CM_RECORD:
            self._end_call(turn.slot, None)
        elif event == lib.CM_READY:
            self._ready(turn.slot)
        elif event == lib.CM_ENDED:
            self._forget(turn.slot)
        elif event == lib.CM_UNSENT:
            self._reply = reply
            self._deliver_reply()
        elif event < 0 and event != -errno.EINTR:
            raise error_for(-event, "waiting for calls")

    def _deliver_reply(self) -> None:
        """Sends the reply that is due in another way than with the next turn."""
        slot, reply, call_id = self._turn.taken, self._reply, self._turn.id
        client = self._clients.get(slot)
        # First: after Ctrl-C in the middle, nobody knows how far it got, and it must not begin anew.
        self._reply = None
        if client is not None and reply is not None:
            self._deliver(slot, client, Answer(call_id, _wire.pack_reply(call_id, [], 0, reply)))
        self._turn.taken = 0

    def _end_call(self, slot: int, answer: Answer | None) -> None:
        """Sends an answer that is no mere reply; without one, deals with the record in the inbox."""
        client = self._clients.get(slot)
        if answer is None:
            self._call(slot)
        elif client is None:
            answer.close()
        else:
            self._finish(slot, client, answer)
        self._turn.taken = 0

    def _call_whole(self, slot: int) -> None:
        """Runs the call in the inbox, which came in one record with all that it announces."""
        turn, inbox = self._turn, self._inbox
        client, count = self._clients.get(slot), inbox.struct.count
        try:
            data = inbox.data()
            call = _wire.rest_of_call(data, turn.id, turn.entries, count, turn.payload)
        except _wire.Malformed:
            client = None
        if client is None or count > self._max_descriptors:
            # To be looked at closer, which says what is wrong.
            self._call(slot)
            return
        descriptors, deadline = inbox.steal(), turn.deadline
        self._run(slot, client, lambda: self._dispatcher.call(call, descriptors, client.peer, deadline))

    def _call(self, slot: int) -> None:
        """Deals with the record in the inbox, whatever it is."""
        client = self._clients.get(slot)
        lost = self._inbox.struct.lost
        why = _inbox.why_lost(self._epoll.number) if lost & lib.CM_LOST_DESCRIPTORS else ""
        received = Received(self._inbox.data(), self._inbox.steal(), why, bool(lost & lib.CM_LOST_BYTES))
        if client is None:
            received.close()
            return
        if client.outbox is not None or client.assembly is not None or _wire.is_of_parts(received.data):
            whole = self._in_parts(slot, client, received)
            if whole is None:
                return
            received = whole
        else:
            refusal = self._reception.refusal(len(received.data), len(received.descriptors), "arguments")
            if refusal:
                self._refuse(slot, client, received, refusal)
                return
        self._run(slot, client, lambda: self._dispatcher.dispatch(received, client.peer))

    def _refuse(self, slot: int, client: Client, received: Received, refusal: str) -> None:
        """Answers a call in one record that is more than the entrypoint takes."""
        try:
            record = _wire.unpack(received.data)
        except _wire.Malformed as malformed:
            call_id = malformed.id
        else:
            call_id = record.id if isinstance(record, _wire.Call) else None
        received.close()
        if call_id is None:
            self._drop(slot, client, refusal)
        else:
            self._deliver(slot, client, fail(call_id, Code.TOO_BIG, refusal))

    def _run(self, slot: int, client: Client, run: Callable[[], Answer]) -> None:
        """Runs a call and sends its answer."""
        try:
            answer = run()
        except Unanswerable as reason:
            # In words: whoever keeps the log's records must not keep what an exception's traceback holds.
            self._drop(slot, client, str(reason))
            return
        except Interrupted as interrupted:
            self._end_call(slot, interrupted.answer)
            raise interrupted.__cause__ or interrupted from None
        except Exception:  # noqa: BLE001 - said there
            self._fault(slot)
            return
        self._finish(slot, client, answer)

    def _fault(self, slot: int) -> None:
        """A fault of ours, which no record should be able to find; but if one does, it costs its sender only."""
        log.critical("%s: a call could not be dispatched", self._label, exc_info=True)
        self._forget(slot)
        self._turn.taken = 0

    def _finish(self, slot: int, client: Client, answer: Answer) -> None:
        """Ends a call here and now: what it owned is closed when its answer is sent, not when the next record comes."""
        if self._epoll.number < 0:
            # The method forked, and this is the child: the client is the parent's.
            answer.close_here()
        else:
            self._deliver(slot, client, answer)

    def _in_parts(self, slot: int, client: Client, received: Received) -> Received | None:
        """Deals with a record of a conversation in parts; the whole call, if this was the end of it."""
        if client.outbox is not None and not client.outbox.awaits_go:
            # Reported though not asked for: the client has hung up without reading its last answer.
            received.close()
            self._drop(slot, client, "it ended without reading its answer")
            return None
        try:
            record = _wire.unpack(received.data)
            if isinstance(record, _wire.Part):
                go, whole = self._reception.part(slot, client, record, received)
                if go and client.send(_wire.pack_go(record.id)) != 0:
                    raise _wire.Malformed("it takes no word that the next part may come", record.id)
                return whole
        except _wire.Malformed as malformed:
            received.close()
            self._drop(slot, client, str(malformed))
            return None
        if isinstance(record, _wire.Go):
            received.close()
            if client.outbox is not None and client.outbox.call_id == record.id:
                self._send_on(slot, client, client.outbox)
            return None
        # Another call: whatever was not finished before it, in either direction, the client has abandoned.
        self._end_outbox(slot, client)
        self._reception.end(slot, client)
        if not isinstance(record, _wire.Begin):
            return received
        received.close()
        refusal = self._reception.begin(slot, client, record)
        if refusal:
            self._deliver(slot, client, fail(record.id, Code.TOO_BIG, refusal))
        return None

    def _deliver(self, slot: int, client: Client, answer: Answer) -> None:
        """Sends an answer, as far as the client has room; in any case the call is over then."""
        # What the client lent is its own again when it has the answer.
        answer.close_arguments()
        if self._sent_at_once(client, answer):
            answer.close_results()
            return
        refusal = self._reception.refusal(len(answer.data), len(answer.numbers), "a result")
        if refusal:
            answer.close_results()
            answer = fail(answer.id, Code.TOO_BIG, refusal)
        try:
            client.outbox = Outbox(answer, client.room)
        except KernelError as error:
            # No room for duplicates; or what the server has kept, another thread of it has closed meanwhile.
            code = Code.TABLE_FULL if isinstance(error, TableFull) else Code.RAISED
            client.outbox = Outbox(fail(answer.id, code, f"at the server, {error.strerror}"), client.room)
        self._send_on(slot, client, client.outbox)
        self._clients.mark(slot)

    def _sent_at_once(self, client: Client, answer: Answer) -> bool:
        """Sends an answer that fits into one record, and may; whether that was all there is to do for it."""
        size, count = len(answer.data), len(answer.numbers)
        if answer.kept or size > min(client.room, self._max_bytes):
            return False
        if count > min(DESCRIPTORS_MAX, self._max_descriptors):
            return False
        return client.send(answer.data, answer.numbers) == 0

    def _send_on(self, slot: int, client: Client, outbox: Outbox) -> None:
        """Sends what is left of an answer, and sees to what then has to happen."""
        status = outbox.send(client.far.number)
        if status == 0:
            self._end_outbox(slot, client)
        elif status == AWAITS_GO:
            self._clients.resume(slot)
            self._bound(client)
        elif status in (-errno.EAGAIN, -errno.EINTR):
            if outbox.stalled:
                # Reported as writable, and not: somebody turns the knobs of this socket.
                self._drop(slot, client, "it takes no answer")
            else:
                self._clients.await_room(slot)
                self._bound(client)
        elif status == -errno.ETOOMANYREFS:
            self._bear(slot, client, outbox)
        elif status == -errno.EMSGSIZE:
            self._answer_instead(slot, client, Code.TOO_BIG, f"a result of {outbox.size} bytes does not fit")
        else:
            self._drop(slot, client, str(error_for(-status, "answering")))

    def _bear(self, slot: int, client: Client, outbox: Outbox) -> None:
        """The kernel wants no more descriptors in flight: waits for others to receive theirs, and then gives up."""
        now = time.monotonic_ns()
        if outbox.give_up is None:
            outbox.give_up = now + IN_FLIGHT_PATIENCE
        if now >= outbox.give_up:
            self._answer_instead(slot, client, Code.IN_FLIGHT, in_flight_limit())
            return
        self._clients.pause(slot)
        self._refused.add(slot)
        self._retry_at = min(self._retry_at, now + _RETRY)

    def _bound(self, client: Client) -> None:
        """Takes no more calls of a peer that has as much to read, over all its channels, as one answer may have."""
        if self._clients.unread(client.peer) > self._max_bytes:
            self._clients.hold(client.peer)
            self._retry_at = min(self._retry_at, time.monotonic_ns() + _STILL)

    def _unbound(self, client: Client) -> None:
        """Takes them again when it has read enough."""
        if self._clients.unread(client.peer) <= self._max_bytes:
            self._clients.release(client.peer)

    def _look_after(self) -> None:
        """Tries again what found no room in flight, and drops whom too many answers wait for."""
        self._retry_refused()
        now = time.monotonic_ns()
        for peer in self._clients.held():
            for slot in self._clients.stalled(peer, now - _STILL):
                client = self._clients.get(slot)
                if client is not None:
                    unread = self._clients.unread(peer)
                    self._drop(
                        slot, client, f"it reads none of {unread} bytes; {self._max_bytes} may wait for a process"
                    )
        if self._clients.held():
            self._retry_at = min(self._retry_at, now + _STILL)

    def _retry_refused(self) -> None:
        """Tries the answers again for which there was no room in flight."""
        slots, self._refused, self._retry_at = self._refused, set(), FOREVER
        for slot in slots:
            client = self._clients.get(slot)
            if client is not None and client.outbox is not None and client.outbox.give_up is not None:
                self._send_on(slot, client, client.outbox)

    def _answer_instead(self, slot: int, client: Client, code: Code, message: str) -> None:
        """Says why there is no answer; a client that has no room even for that is dropped."""
        outbox = client.outbox
        if outbox is None:
            return
        if outbox.begun:
            self._drop(slot, client, message)
            return
        if client.send(fail(outbox.call_id, code, message).data) == 0:
            self._end_outbox(slot, client)
        else:
            self._drop(slot, client, "it takes no answer")

    def _end_outbox(self, slot: int, client: Client) -> None:
        """The answer is sent, or not wanted: reads the channel again."""
        if client.outbox is not None:
            waited = client.outbox.waited
            client.outbox.close()
            client.outbox = None
            if waited:
                self._clients.resume(slot)
                self._unbound(client)

    def _drop(self, slot: int, client: Client, reason: str) -> None:
        """Ends a channel for a reason of its client's making."""
        log.warning("%s: dropped a channel of process %d: %s", self._label, client.peer.pid, reason)
        self._forget(slot)

    def _make_room(self) -> bool:
        """Gives up the channel that is missed least; its client knocks again when it has something to say."""
        slot = self._clients.idlest()
        client = self._clients.get(slot) if slot is not None else None
        if slot is None or client is None:
            return False
        # A call that crosses this is not read, so that its client repeats it on a new channel.
        client.send(_wire.GONE_RECORD)
        self._forget(slot)
        return True

    def _forget(self, slot: int) -> None:
        """Ends a channel."""
        client = self._clients.get(slot)
        if client is not None:
            self._reception.end(slot, client)
            self._clients.drop(slot)
            self._unbound(client)

    def _ready(self, slot: int) -> None:
        if slot == _doorkeeper.SLOT:
            self._doorkeeper.open()
            return
        client = self._clients.get(slot)
        if slot >= lib.CM_FIRST_CHANNEL and client is not None and client.outbox is not None:
            self._send_on(slot, client, client.outbox)
