"""What a record means to a server: bytes and descriptors in, an answer out.  No I/O."""

from __future__ import annotations

import threading
import time
import types
import weakref
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from capmarshal._capabilities import homecoming
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._kernel import call_log
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER
from capmarshal._protocol import wire
from capmarshal._protocol.faults import Code
from capmarshal._server.answer import Answer, fail, reply
from capmarshal._server.calls import Calls
from capmarshal._server.handler import Handler
from capmarshal._server.logged_calls import LoggedCalls
from capmarshal._typed.incoming import Incoming

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._protocol.wire import Call, Entry, Fail, Reply
    from capmarshal._server.clients import Channel
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects
    from capmarshal._server.shares import Shares

    # Told how what was awaited has ended: by its result, or by the error that it raised.
    Then: TypeAlias = Callable[[object, BaseException | None], None]
    # Has what a function returns awaited, in a task of that name, and tells how it has ended.
    Ask: TypeAlias = Callable[[Callable[[], object], Then, str], "Asked"]

T = TypeVar("T")

# How long an inline call waits for its arguments to be closed.
_CLOSING_SECONDS = 1.0
# Further away than that is for ever; keeps what a peer sends within 63 bits.
_FAR = 1 << 62


class Asked(Protocol):
    """Something of the application's that is no call, and is awaited."""

    def cancel(self) -> None:
        """Awaits it no more."""


class Received(NamedTuple):
    """A record as it came from the kernel.

    Attributes:
        data: the bytes.
        descriptors: taken by whoever answers it.
        lost: why some of the descriptors are missing; empty if none are.
        cut: the bytes are not all.
    """

    data: bytes | memoryview
    descriptors: DescriptorList
    lost: str = ""
    cut: bool = False


class _Turn(NamedTuple):
    """A call that is answered in a turn of its own."""

    id: int
    slot: int


class Unanswerable(Exception):  # never leaves the package: the channel is dropped
    """A record so broken that there is no call to answer."""


class Dispatcher:
    """Checks records and has their calls run: what the capability space knows as the home of an entrypoint's own.

    Args:
        objects: what can be called.
        journal: where it is written what methods raise.

    Attributes:
        calls: runs them.
    """

    def __init__(self, objects: Objects, journal: Journal) -> None:
        self._objects = objects
        self.calls = self._make_calls(objects, journal)

    def _make_calls(self, objects: Objects, journal: Journal) -> Calls:
        return (LoggedCalls if call_log.wanted() else Calls)(objects, journal, weakref.ref(self))

    def run_beside(self, what: str, function: Callable[[], T]) -> T:
        """Runs something of the application's that is no call, as if it were one, and raises what that raises.

        Args:
            what: it is, for people.
            function: what is run.

        Raises:
            TypeError: what it gives is to be awaited.
        """
        before = _deadline.current.get()
        try:
            self._objects.beside = what
            given = function()
            if hasattr(given, "__await__"):
                if isinstance(given, types.CoroutineType):
                    # Else it is warned of, too.
                    given.close()
                words = "gave something to be awaited, which only a capmarshal.aio.Entrypoint does; write def"
                raise TypeError(f"{what} {words}")
            return given
        finally:
            self._objects.beside = ""
            _deadline.current.set(before)

    def object_behind(self, kept_under: bytes) -> object | None:
        """The object that is kept under this, if any."""
        return self._objects.get(kept_under)

    def lets_call_all(self, kept_under: bytes) -> bool:
        """Whether all methods of that object can be called by whoever holds the door."""
        return not self._objects.is_restricted(kept_under)

    @property
    def label(self) -> str:
        """Of the entrypoint."""
        return self.calls.label

    @property
    def begun_by(self) -> str:
        """What has it served, for people."""
        return "enter it (with), or call serve_forever()"

    def served(self) -> bool:
        """Whether some thread runs the calls."""
        return self.calls.thread is not None

    def serves_this_thread(self) -> bool:
        """Whether the current thread is the one that runs the calls."""
        return self.calls.thread == threading.get_ident()

    def takes_no_other(self) -> bool:
        """Whether the current thread is that one, and within something that keeps it from running any other call.

        Or another, in which a task of an event loop does what a method of that one has asked for.
        """
        return (self.serves_this_thread() or self.calls.are_current()) and bool(self._objects.in_progress())

    def never_while_awaited(self) -> str:
        """Why nothing that this is to do is done as long as the event loop runs that is here; empty if it is."""
        if not self.serves_this_thread():
            return ""
        return (
            "in an event loop of the thread that serves it: it would wait for itself, as that goes on when the loop "
            "has ended; a call by a blocking proxy (cm.blocking() derives its interface) runs in place"
        )

    def never_while_blocked(self, awaited: str) -> str:  # noqa: ARG002 - nothing is awaited here
        """Why nothing that this is to do is done as long as this thread waits; empty if it is."""
        if not self.serves_this_thread():
            return ""
        return "in the thread that serves it: it would wait for itself; do it in another one"

    def method_here(self) -> object | None:
        """Of methods that are awaited, the one that runs here: nobody's here."""
        return None

    def call_inline(
        self,
        door: Door,
        badge: bytes,
        method: bytes,
        payload: bytes,
        entries: Sequence[Entry] | None,
        numbers: Sequence[int],
    ) -> tuple[Reply | Fail, DescriptorList]:
        """Runs a call of the serving thread to an object of its own: it would wait for itself otherwise.

        The same rules hold as for any call: arguments are copies, and the call owns its descriptors.
        """
        deadline = _deadline.in_force()
        table = wire.plain(len(numbers)) if entries is None else list(entries)
        kept_under = door.kept_under(badge)
        call = wire.Call(0, kept_under, wire.NO_LIMIT, 0, method, table, len(numbers), memoryview(payload))
        expired = deadline != FOREVER and time.monotonic_ns() >= deadline
        borrowed = DescriptorList.dup_of(numbers)
        inline = len(self.calls.inline)
        came_home = homecoming.here.get()
        try:
            # That of the call which makes this one is not this one's.
            homecoming.here.set(None)
            self.calls.inline.append(self.calls.served.grant_at(door.key))
            answer = self.calls.run_own(partial(self.call, call, borrowed, None, None if expired else deadline))
        finally:
            del self.calls.inline[inline:]
            homecoming.here.set(came_home)
        assert isinstance(answer, Answer)  # noqa: S101 - nothing runs beside others in a thread
        if answer.escape:
            answer.close()
            answer.let_escape()
        try:
            # As over a channel: before the answer leaves, and not for long.
            reaper.close_within(_CLOSING_SECONDS, answer.arguments)
            record = wire.unpack(answer.data + answer.rest)
            assert isinstance(record, (wire.Reply, wire.Fail))  # noqa: S101 - by construction
            return record, DescriptorList.dup_of(answer.numbers)
        finally:
            reaper.close(answer.results)

    def dispatch(self, received: Received, channel: Channel) -> Answer | Handler:
        """Answers a record; the descriptors in it are taken.

        Raises:
            Unanswerable: it is no call at all; the caller still owns the descriptors.
        """
        owned = [received.descriptors]
        try:
            record = wire.unpack(received.data)
        except wire.Malformed as malformed:
            if malformed.id is None:
                raise Unanswerable(str(malformed)) from None
            return fail(malformed.id, Code.MALFORMED, str(malformed), owned)
        if not isinstance(record, wire.Call):
            raise Unanswerable(f"a {type(record).__name__} where only calls are due")
        refusal = _refusal(record, received, channel.peer.shares)
        if refusal is not None:
            return fail(record.id, *refusal, owned)
        return self.call(record, received.descriptors, channel, _deadline_of(record))

    def call(
        self, call: Call, descriptors: DescriptorList, channel: Channel | None, deadline: int | None
    ) -> Answer | Handler:
        """Runs a call; the descriptors are taken.

        Args:
            call: the record.
            descriptors: that came with it.
            channel: that it came by; None for one that a method makes inline.
            deadline: until when it may take; None if that has passed.
        """
        if deadline is None:
            words = "the deadline passed before the server came to the call"
            return fail(call.id, Code.EXPIRED, words, [descriptors])
        peer = channel.peer if channel is not None else None
        came = Incoming(call.entries, descriptors, peer, self) if call.entries or len(descriptors) else None
        turn = _Turn(call.id, channel.slot if channel is not None else 0)
        badge = call.badge if channel is None else wire.combined(call.badge, channel.secret)
        answer = self.calls.run(turn, badge + call.method, call.payload, deadline, came)
        return answer if isinstance(answer, (Answer, Handler)) else reply(call.id, answer)


def _refusal(call: Call, received: Received, shares: Shares) -> tuple[Code, str] | None:
    """Why a call is not run that is more than may be, or has not come as it was sent; None if it is run."""
    came = len(received.descriptors)
    too_large = shares.arguments_too_large(len(received.data), came)
    if too_large:
        return Code.TOO_BIG, too_large
    if received.cut:
        return Code.TOO_BIG, f"the call is larger than the {len(received.data)} bytes of room for it"
    if received.lost:
        lost = call.descriptors - came
        return Code.LOST, f"{lost} of {call.descriptors} descriptors were lost at the server: {received.lost}"
    if came != call.descriptors:
        return Code.MALFORMED, f"{call.descriptors} descriptors were announced, {came} came"
    return None


def _deadline_of(call: Call) -> int | None:
    """Until when the call may take; None if that has passed.

    Both ends read the same clock, unless they are in different time namespaces: a call that seems to come from the
    future just has its time left from now on.
    """
    if call.time_left == wire.NO_LIMIT:
        return FOREVER
    now = time.monotonic_ns()
    waited = max(now - call.sent_at, 0)
    if waited >= call.time_left:
        return None
    return min(now - waited + call.time_left, _FAR)
