"""Answers on their way out: sent as far as there is room, and then when there is more.

Nothing here waits for a particular client.  What cannot be sent for a reason of the client's making ends its channel.
"""

from __future__ import annotations

import errno
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._descriptors.refused import REFUSALS, refused_of
from capmarshal._kernel.errors import KernelError, TableFull, error_for, in_flight_limit
from capmarshal._kernel.native import DESCRIPTORS_MAX
from capmarshal._kernel.waiting import IN_FLIGHT_PATIENCE
from capmarshal._protocol.faults import Code
from capmarshal._protocol.states import Event, State
from capmarshal._server.answer import fail
from capmarshal._server.backlog import Backlog
from capmarshal._server.outbox import Outbox
from capmarshal._server.timers import Again

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._descriptors.closing import ClosableFile
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._server.answer import Answer
    from capmarshal._server.channels import Channels
    from capmarshal._server.clients import Channel, Peer
    from capmarshal._server.closings import Closings
    from capmarshal._server.timers import Timers

# Nanoseconds between two tries to send what there is no room for in flight.
_RETRY = 5_000_000
# And how many are tried then.
_RETRIED = 64
# Why a peer is held back.
_UNDRAWN = "it does not receive the descriptors that it is sent"

_ENDED = (-errno.EPIPE, -errno.ECONNRESET)

# How long an answer waits until what its call owned is closed.
_CLOSING_PATIENCE = 1_000_000_000


class Answers:
    """Sends the answers of one server.

    Args:
        channels: whom they go to.
        closings: closes what their calls owned.
        timers: of the loop.
        drop: ends a channel for a reason of its client's making.
        warn: writes into the log about a peer: kind, words, and what stands in them.
    """

    def __init__(
        self,
        channels: Channels,
        closings: Closings,
        timers: Timers,
        *,
        drop: Callable[[Channel, str], None],
        warn: Callable[..., None],
    ) -> None:
        self._channels = channels
        self._closings = closings
        self._timers = timers
        self._backlog = Backlog(channels, timers, drop)
        self._shares = channels.shares
        self._drop = drop
        self._warn = warn
        # Channels whose answers found no room in flight, in the order in which they were tried.
        self._refused: dict[Channel, None] = {}
        self._retrying = Again(timers, _RETRY, self._retry)

    def deliver(self, channel: Channel, answer: Answer) -> None:
        """Ends a call that has run: closes its arguments, and then sends its answer, as far as there is room."""
        closed = not answer.arguments or self._closings.close(
            channel.peer, answer.arguments, partial(self._when_closed, channel, answer.id)
        )
        if closed and self._sent_at_once(channel, answer):
            self.settle(channel, answer.results)
            return
        channel.outbox = self._outbox(channel, answer)
        if closed:
            self.proceed(channel)
            return
        self._move(channel, Event.RAN)
        self._backlog.add(channel, channel.outbox.size)
        self._timers.after(_CLOSING_PATIENCE, partial(self._closing_late, channel, answer.id))

    def _sent_at_once(self, channel: Channel, answer: Answer) -> bool:
        """Sends an answer that fits into one record, and may be sent now; whether it did."""
        size, count = answer.size, len(answer.numbers)
        if answer.kept or answer.rest or size > min(channel.room, self._shares.result_bytes):
            return False
        if count > min(DESCRIPTORS_MAX, self._shares.result_descriptors):
            return False
        if count and not self._channels.unread.send(channel, count):
            return False
        sent = channel.send(answer.data, answer.numbers) == 0
        if not sent:
            self._channels.unread.not_sent(channel, count)
        return sent

    def _outbox(self, channel: Channel, answer: Answer) -> Outbox:
        """An answer that is not sent at once; where it cannot be sent at all, one that says why."""
        refusal = self._shares.result_too_large(answer.size, len(answer.numbers))
        if refusal:
            self._closings.close(channel.peer, answer.results)
            return Outbox(fail(answer.id, Code.TOO_BIG, refusal), channel.room)
        try:
            return Outbox(answer, channel.room)
        except KernelError as error:
            # No room for duplicates; or what the server has kept, another thread of it has closed meanwhile.
            code = Code.TABLE_FULL if isinstance(error, TableFull) else Code.UNSENDABLE
            self._closings.close(channel.peer, answer.results)
            return Outbox(fail(answer.id, code, f"at the server, {error.strerror}"), channel.room)

    def _when_closed(self, channel: Channel, call_id: int) -> None:
        outbox = channel.outbox
        if channel.state is State.CLOSING and outbox is not None and outbox.call_id == call_id:
            self.proceed(channel)

    def _closing_late(self, channel: Channel, call_id: int) -> None:
        # What is closed is not late, though the loop was busy when that was told.
        self._closings.settle()
        # By the call's number: a timer must not keep an answer that was sent long ago.
        if channel.state is State.CLOSING and channel.outbox is not None and channel.outbox.call_id == call_id:
            words = "what a call sent is open %.0f s after its end: closing it takes so long; its answer leaves now"
            self._warn(channel.peer, "late", words, _CLOSING_PATIENCE / 1e9)
            self.proceed(channel)

    def proceed(self, channel: Channel) -> None:
        """Sends what is left of an answer, and sees to what then has to happen."""
        outbox = channel.outbox
        if outbox is None:
            return
        while outbox.next is not None:
            piece = outbox.next
            count = len(piece.numbers)
            if count and not self._channels.unread.send(channel, count):
                lie = channel.peer.unread
                if lie:
                    # Each further call may bring more that has to wait here, in this process's table.
                    self._channels.hold(channel.peer, _UNDRAWN)
                self._bear(channel, outbox, f"{lie} descriptors that {channel.peer.process} was sent lie unread")
                return
            status = outbox.send(channel.far.number, piece)
            if status != 0:
                self._channels.unread.not_sent(channel, count)
                self._unsent(channel, outbox, status)
                return
            if piece.waits:
                self._wait(channel, outbox, Event.PART)
                return
        self.settle(channel, outbox.steal_owned())

    def _unsent(self, channel: Channel, outbox: Outbox, status: int) -> None:
        if status in (-errno.EAGAIN, -errno.EINTR):
            if outbox.wants_room:
                # Reported as writable, and not: somebody turns the knobs of this socket.
                self._drop(channel, "it takes no answer")
            else:
                outbox.wants_room = True
                self._wait(channel, outbox, Event.FULL)
        elif status == -errno.ETOOMANYREFS:
            self._bear(channel, outbox, in_flight_limit())
        elif status in (-errno.ENOMEM, -errno.ENOBUFS):
            self._bear(channel, outbox, "the kernel has no memory for the answer")
        elif status == -errno.EMSGSIZE:
            self._answer_instead(channel, outbox, Code.TOO_BIG, f"a result of {outbox.size} bytes does not fit")
        elif -status in REFUSALS and (refused := refused_of(outbox.next.numbers if outbox.next else ())) is not None:
            # No fault of the client's, which may have part of the answer: it reads this as the end of it.
            outbox.begun = False
            self._answer_instead(
                channel, outbox, Code.UNSENDABLE, f"it cannot be sent: a descriptor in it is {refused.why}"
            )
        else:
            # A client may be killed, or give a call up, when its answer is on its way.
            self._drop(channel, "" if status in _ENDED else str(error_for(-status, "answering")))

    def _bear(self, channel: Channel, outbox: Outbox, why: str) -> None:
        """No more descriptors may be in flight: waits for those that are to be received, and then gives up."""
        now = time.monotonic_ns()
        if outbox.give_up is None:
            outbox.give_up = now + IN_FLIGHT_PATIENCE
        if now >= outbox.give_up:
            self._answer_instead(channel, outbox, Code.IN_FLIGHT, why)
            return
        self._wait(channel, outbox, Event.TOO_MANY)
        self._retrying.begin()
        self._refused[channel] = None

    def _retry(self) -> bool:
        """Tries some of the answers again that found no room in flight: those that have waited for longest, in turn."""
        for channel in tuple(itertools.islice(self._refused, _RETRIED)):
            del self._refused[channel]
            if channel.state is State.AWAITING_ROOM:
                self.proceed(channel)
            self._release(channel.peer)
        return bool(self._refused)

    def _release(self, peer: Peer) -> None:
        """Takes calls of a peer again when none of its answers waits for it to receive descriptors."""
        if _UNDRAWN in peer.held and not any(one.state is State.AWAITING_ROOM for one in peer.channels.values()):
            self._channels.release(peer, _UNDRAWN)

    def _answer_instead(self, channel: Channel, outbox: Outbox, code: Code, message: str) -> None:
        """Says why there is no answer; a client that has no room even for that is dropped."""
        if outbox.begun:
            self._drop(channel, message)
        elif channel.send(fail(outbox.call_id, code, message).data) == 0:
            self.settle(channel, outbox.steal_owned())
        else:
            self._drop(channel, "it takes no answer")

    def settle(self, channel: Channel, owned: Sequence[ClosableFile | DescriptorList]) -> None:
        """The answer is sent: closes what the call owned, and then reads the channel again."""
        channel.outbox = None
        self._backlog.remove(channel)
        if not owned or self._closings.close(channel.peer, owned, partial(self._settled, channel)):
            self._sent(channel)
        else:
            self._move(channel, Event.SETTLE)
            # Nor does it wait for ever for what others keep the reaper busy with.
            self._timers.after(_CLOSING_PATIENCE, partial(self._settled, channel))

    def _settled(self, channel: Channel) -> None:
        if channel.state is State.SETTLING:
            self._sent(channel)

    def _sent(self, channel: Channel) -> None:
        self._move(channel, Event.SENT if channel.refused is None else Event.SENT_EARLY)

    def abandon(self, channel: Channel) -> None:
        """Drops an answer of which its client does not want the rest."""
        outbox, channel.outbox = channel.outbox, None
        self._backlog.remove(channel)
        if outbox is not None:
            self._closings.close(channel.peer, outbox.steal_owned())

    def _move(self, channel: Channel, event: Event) -> None:
        if not self._channels.move(channel, event):
            self._drop(channel, "the kernel has no memory to watch it")

    def _wait(self, channel: Channel, outbox: Outbox, event: Event) -> None:
        """An answer waits for its reader: no more calls are taken of a peer that has more unread than it may."""
        self._move(channel, event)
        if channel.state is State.ENDED:
            return
        self._backlog.add(channel, outbox.size)
