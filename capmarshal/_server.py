"""The server's loop: one thread, one epoll set; a reply and the wait for the next record in one crossing into C.

It trusts no flag of a socket, for the client made both ends of the channel and may have kept a copy: nothing here
waits for a particular client.  What cannot be sent for a reason of the client's making ends its channel.
"""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING

from capmarshal import _inbox, _private, _reaper, _wire
from capmarshal._capability import cookies_of
from capmarshal._channel import IN_FLIGHT_PATIENCE
from capmarshal._clients import Clients, Parked
from capmarshal._dispatch import Interrupted, Received, Unanswerable, fail, log
from capmarshal._errors import TableFull, check, error_for, in_flight_limit
from capmarshal._faults import Code
from capmarshal._lx import FOREVER, NOW, NULL, ffi, lib
from capmarshal._private import Private

if TYPE_CHECKING:
    from capmarshal._capability import Peer
    from capmarshal._clients import Client
    from capmarshal._dispatch import Answer, Dispatcher

# Slots of the server's own descriptors.
_DOOR, _WAKE = 0, 1

# Taken per event of the door, so that a flood of knocks leaves turns for calls.
_KNOCKS_AT_ONCE = 16
# A knock is all head; one byte more shows that it is not.
_KNOCK_ROOM = len(_wire.KNOCK_RECORD) + 1

# Nanoseconds between two tries to send what there is no room for in flight, and between two lines about knocks.
_RETRY = 5_000_000
_LOG_PAUSE = 1_000_000_000


class Server:
    """Serves one door.

    Args:
        door: the server's end, taken.
        dispatcher: what runs the calls.
        label: of the entrypoint, for the log.

    Raises:
        TableFull, KernelError: the caller still owns ``door``.
    """

    def __init__(self, door: Private, dispatcher: Dispatcher, label: str) -> None:
        self._dispatcher = dispatcher
        self._label = label
        self._turn = ffi.new("struct cm_turn *")
        self._inbox = _inbox.Inbox(within=self._turn)
        self._knock_inbox = _inbox.Inbox(_KNOCK_ROOM)
        self._clients = Clients(self._turn)
        self._stopped = False
        # Slots whose parked answer the kernel refuses because too many descriptors are in flight; when to try again.
        self._refused: set[int] = set()
        self._retry_at = FOREVER
        self._refusals = self._log_again_at = 0
        # An answer that is sent with the next turn; the far end of the channel that a knock has just brought.
        self._pending: tuple[int, Client, Answer] | None = None
        self._far = Private(-1)
        with _private.lock:
            self._epoll = Private(check(lib.lx_epoll_create1(select.EPOLL_CLOEXEC), "making an epoll set"), epoll=True)
            try:
                self._wake = Private(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            except OSError as error:
                self._epoll.close()
                raise error_for(error.errno or 0, "making an eventfd") from None
        self._turn.epoll = self._epoll.number
        self._door = door
        try:
            check(self._clients.watch(_DOOR, door.number), "watching the door")
            check(self._clients.watch(_WAKE, self._wake.number), "watching for the end")
        except BaseException:
            self._wake.close()
            self._epoll.close()
            raise

    @property
    def channels(self) -> int:
        """How many channels are open."""
        return len(self._clients)

    def stop(self) -> None:
        """Has :meth:`run` return when the call in progress is answered.  From any thread."""
        self._stopped = True
        with _private.lock:
            if self._wake.number >= 0:
                os.eventfd_write(self._wake.number, 1)

    def close(self) -> None:
        """Closes the door and all channels; nobody runs it any more."""
        self._clients.drop_all()
        with _private.lock:
            self._wake.close()
        self._epoll.close()
        _reaper.close(self._door)

    def run(self) -> None:
        """Serves until it is stopped, or until this process turns out to be a forked child.

        Raises:
            KeyboardInterrupt, SystemExit: raised in a method or a signal handler; it may be run again.
        """
        try:
            while not self._stopped and self._epoll.number >= 0:
                self._turn_once()
                if self._refused and time.monotonic_ns() >= self._retry_at:
                    self._retry_refused()
        finally:
            if self._epoll.number >= 0:
                self._tidy()

    def _tidy(self) -> None:
        """Leaves nothing half done, also where Ctrl-C came between two steps: nobody waits for what will not come."""
        if self._pending is not None:
            slot, client, answer = self._pending
            self._pending = None
            # Perhaps for the second time: its ID tells.
            if self._clients.get(slot) is client:
                self._deliver(slot, client, answer)
        self._dispatcher.end_all()
        if self._turn.taken:
            self._clients.drop(self._turn.taken)
            self._turn.taken = 0
        for descriptor in (*self._inbox.steal(), *self._knock_inbox.steal()):
            _reaper.close_descriptor(descriptor.detach())
        if self._far.number >= 0:
            self._clients.disown(self._far)
            self._far = Private(-1)

    def _turn_once(self) -> None:
        """Sends the pending answer and handles one event."""
        turn = self._turn
        if self._pending is None:
            event = lib.cm_reply_wait(-1, NULL, 0, (), 0, turn, self._retry_at)
        else:
            slot, client, answer = self._pending
            event = lib.cm_reply_wait(client.far.number, answer.data, len(answer.data), (), 0, turn, self._retry_at)
            if event == lib.CM_UNSENT:
                self._undelivered(slot, client, answer, turn.status)
            self._pending = None
        if event == lib.CM_RECORD:
            self._call(turn.slot)
            turn.taken = 0
        elif event == lib.CM_READY:
            self._ready(turn.slot)
        elif event == lib.CM_ENDED:
            self._clients.drop(turn.slot)
        elif event < 0 and event != -errno.EINTR:
            raise error_for(-event, "waiting for calls")

    def _call(self, slot: int) -> None:
        """Has the record in the inbox answered, at once or with the next turn."""
        client = self._clients.get(slot)
        lost = self._inbox.struct.lost
        why = _inbox.why_lost(self._epoll.number) if lost & lib.CM_LOST_DESCRIPTORS else ""
        received = Received(self._inbox.data(), self._inbox.steal(), why, bool(lost & lib.CM_LOST_BYTES))
        if client is None or client.parked is not None:
            # Reported though not asked for: the client has hung up without reading its last answer.
            for descriptor in received.descriptors:
                _reaper.close_descriptor(descriptor.detach())
            self._clients.drop(slot)
            return
        try:
            answer = self._dispatcher.dispatch(received, client.peer)
        except Unanswerable as reason:
            # In words: whoever keeps the log's records must not keep what an exception's traceback holds.
            log.warning("%s: dropped a channel of process %d: %s", self._label, client.peer.pid, str(reason))
            self._clients.drop(slot)
            return
        except Interrupted as interrupted:
            self._finish(slot, client, interrupted.answer)
            self._turn.taken = 0
            raise interrupted.__cause__ or interrupted from None
        if answer.owned or answer.numbers:
            self._finish(slot, client, answer)
        else:
            self._pending = slot, client, answer

    def _finish(self, slot: int, client: Client, answer: Answer) -> None:
        """Ends a call here and now: what it owned is closed when its answer is sent, not when the next record comes."""
        if self._epoll.number < 0:
            # The method forked, and this is the child: the client is the parent's.
            answer.close()
        else:
            self._deliver(slot, client, answer)

    def _deliver(self, slot: int, client: Client, answer: Answer) -> None:
        """Sends an answer, parks it, or ends the channel; in any case the call is over then."""
        status = _send(client, answer.data, answer.numbers)
        if status == 0:
            answer.close()
        else:
            self._undelivered(slot, client, answer, status)

    def _undelivered(self, slot: int, client: Client, answer: Answer, status: int) -> None:
        """Deals with an answer that sendmsg(2) did not take."""
        try:
            if status in (-errno.EAGAIN, -errno.EINTR):
                client.parked = Parked(answer, None)
                self._clients.await_room(slot)
            elif status == -errno.ETOOMANYREFS:
                client.parked = Parked(answer, time.monotonic_ns() + IN_FLIGHT_PATIENCE)
                self._clients.pause(slot)
                self._refused.add(slot)
                self._retry_at = time.monotonic_ns() + _RETRY
            elif status == -errno.EMSGSIZE:
                size = len(answer.data)
                self._answer_instead(
                    slot, client, fail(answer.id, Code.TOO_BIG, f"a result of {size} bytes is too large")
                )
            else:
                log.info("%s: dropped a channel: %s", self._label, error_for(-status, "answering"))
                self._clients.drop(slot)
        except TableFull as error:
            self._answer_instead(slot, client, fail(answer.id, Code.TABLE_FULL, f"at the server, {error.strerror}"))
        finally:
            answer.close()

    def _answer_instead(self, slot: int, client: Client, failure: Answer) -> None:
        """Says why there is no answer; a client that has no room even for that is dropped."""
        if _send(client, failure.data, []) != 0:
            self._clients.drop(slot)

    def _ready(self, slot: int) -> None:
        if slot == _DOOR:
            self._open_door()
        elif slot >= lib.CM_FIRST_CHANNEL:
            self._send_parked(slot)

    def _send_parked(self, slot: int) -> None:
        client = self._clients.get(slot)
        if client is None or client.parked is None:
            return
        if _send(client, client.parked.data, client.parked.numbers) == 0:
            self._unpark(slot, client)
        else:
            # Reported as writable, and not: somebody turns the knobs of this socket.
            log.info("%s: dropped a channel of process %d that takes no answer", self._label, client.peer.pid)
            self._clients.drop(slot)

    def _unpark(self, slot: int, client: Client) -> None:
        if client.parked is not None:
            _reaper.close(client.parked)
            client.parked = None
        self._clients.resume(slot)

    def _retry_refused(self) -> None:
        """Tries the answers again for which there was no room in flight."""
        now = time.monotonic_ns()
        for slot in tuple(self._refused):
            client = self._clients.get(slot)
            if client is None or client.parked is None or client.parked.give_up is None:
                self._refused.discard(slot)
                continue
            status = _send(client, client.parked.data, client.parked.numbers)
            if status == -errno.ETOOMANYREFS:
                if now < client.parked.give_up:
                    continue
                self._answer_instead(slot, client, fail(client.parked.call_id, Code.IN_FLIGHT, in_flight_limit()))
                status = 0
            self._refused.discard(slot)
            if self._clients.get(slot) is client:
                if status == 0:
                    self._unpark(slot, client)
                else:
                    self._clients.drop(slot)
        self._retry_at = now + _RETRY if self._refused else FOREVER

    def _open_door(self) -> None:
        """Takes the channels that knocks have brought."""
        for _ in range(_KNOCKS_AT_ONCE):
            # A fork in between would leave the child with a copy of the client's far end.
            with _private.lock:
                if self._door.number < 0:
                    return
                result = lib.cm_receive(self._door.number, self._knock_inbox.struct, NOW)
                if result <= 0:
                    break
                if self._knock_inbox.struct.count == 1:
                    self._knock_inbox.steal_into(self._far)
            self._admit()
        else:
            return
        if result == 0:
            # Some holder of the client end has shut it down, for all holders (shutdown(2)).
            log.error("%s: the door was shut by one of its holders; open channels go on", self._label)
            self._clients.unwatch(_DOOR)

    def _admit(self) -> None:
        """Takes the channel that the knock in the inbox brought, if it is one."""
        struct, far = self._knock_inbox.struct, self._far
        peer = self._clients.peer(struct.pid, struct.uid)
        if struct.lost & lib.CM_LOST_DESCRIPTORS:
            reason = _inbox.why_lost(self._epoll.number)
        elif self._knock_inbox.data() != _wire.KNOCK_RECORD or not cookies_of([far.number])[0]:
            reason = "it is no knock"
        else:
            reason = self._clients.refusal(peer) or self._clients.add(far, peer)
        if reason:
            if far.number >= 0:
                _reaper.close(far)
            for descriptor in self._knock_inbox.steal():
                _reaper.close_descriptor(descriptor.detach())
            self._log_refusal(peer, reason)
        self._far = Private(-1)

    def _log_refusal(self, peer: Peer, reason: str) -> None:
        """Says so, but not as often as a stranger likes."""
        self._refusals += 1
        now = time.monotonic_ns()
        if now >= self._log_again_at:
            log.warning(
                "%s: refused %d knock(s), the last of process %d (user %d): %s",
                self._label, self._refusals, peer.pid, peer.uid, reason,
            )  # fmt: skip
            self._refusals = 0
            self._log_again_at = now + _LOG_PAUSE


def _send(client: Client, data: bytes, numbers: list[int]) -> int:
    """Sends without waiting; 0 or -errno."""
    part = ffi.new("struct iovec *")
    memory = ffi.from_buffer(data)
    part.iov_base, part.iov_len = memory, len(data)
    return lib.cm_send(client.far.number, part, 1, numbers, len(numbers), NOW)
