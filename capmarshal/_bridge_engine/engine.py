"""The seam to what carries bodies between machines: five verbs, so that another engine can be put there.

A *subject* is a place, as ``cm.host.9f86d081``; a *body* is bytes, of which the engine knows nothing.  They are
sealed (:mod:`capmarshal._bridge_link.sealing`): an engine, and who else uses it, may lie, repeat, keep back and lose,
and can neither read nor forge.  What each verb says is what an honest one does.

**What may have been sent.**  Each error says which of two things is so:

- :class:`NotSent`: it has reached nobody, and never will.  Such is whatever is asked for while the engine has no
  connection: it is refused at once, and not kept until there is one again.  What a connection was given, and had not
  passed on when it was lost, is never passed on by the next one.
- anything else, being cancelled included: it may have arrived, and may still arrive.  A machine that stands still with
  a body in it passes that on when it goes on, be it hours later: bodies say until when they mean anything, and whoever
  takes them looks at that, and not at when they were sent.

**What is not promised**: a body may be lost, come late, come after one that was sent later, and come twice.

**When the engine is gone**: its nodes are tried one after the other, and again, until :meth:`Engine.close`.  Meanwhile
nothing is sent; what is served and watched is so again with the next connection, and calls that were made go on
waiting, since their answers may come by that.

**Cancelling and deadlines** end the waiting, here: who serves is told neither, nor that nobody waits any more.  A later
answer is dropped.

**Sizes**: a body has :data:`LARGEST` bytes at most, and may be empty.

An engine belongs to the event loop in which it was made, and that is one of asyncio's (uvloop's included), since the
client of NATS has no other; the verbs may be cancelled by anyio's scopes there as well as by asyncio.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from capmarshal._kernel.errors import Error

# Bytes; what NATS lets through unless it is told otherwise (max_payload).
LARGEST = 1 << 20

# Seconds; how long closing waits for what runs, unless it is told otherwise.
CLOSING = 5.0


class Later:
    """An answer that a handler has not made yet, and of which it says when it has: no task has to wait for it."""

    def __init__(self) -> None:
        """Not made."""
        self._then: Callable[[bytes], object] | None = None
        self._made: bytes | None = None

    def answer(self, body: bytes) -> None:
        """It is made.  Does nothing the second time."""
        if self._made is not None:
            return
        self._made = body
        # Not kept: what takes it may refer to this.
        take, self._then = self._then, None
        if take is not None:
            take(body)

    def then(self, take: Callable[[bytes], object]) -> None:
        """For the engine: has it taken as soon as it is made, and by nobody else that was to take it."""
        if self._made is None:
            self._then = take
        else:
            take(self._made)


Handler: TypeAlias = Callable[[bytes], bytes | Later | Awaitable[bytes]]
Watcher: TypeAlias = Callable[[bytes], Awaitable[None]]
Accept: TypeAlias = Callable[[bytes], bool]
Stop: TypeAlias = Callable[[], Awaitable[None]]

_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_LONGEST_SUBJECT = 200


class EngineError(Error, ConnectionError):
    """What an engine could not do."""


class NotSent(EngineError):
    """A body has reached nobody and never will: it may be sent again without being there twice."""


class NobodyThere(NotSent):
    """Nobody serves that subject: the engine says so at once.

    It is the engine's word, of this moment.  A server that has just begun, or lost its node and found another one, may
    not be known everywhere yet.  And it is as good as the engine: in one where neighbours may send to each other's
    inboxes, a neighbour can say it, too.
    """


class NoConnection(NotSent):
    """The engine has no connection to any of its nodes at the moment."""


class TooLong(NotSent, ValueError):
    """A body is longer than :data:`LARGEST`."""


class EngineClosed(NotSent):
    """The engine was closed here."""


class Unanswered(EngineError, TimeoutError):
    """A call was not answered in time, or the engine was closed meanwhile: it may have been served, and may yet be."""


class NotAllowed(Unanswered, PermissionError):
    """The engine's node does not let this one do that: the message says which permission is missing.

    It is told so of a subject, not of one body.  A call has reached nobody, and never will, unless the permission was
    withdrawn while it was under way: so this is no ``NotSent``.
    """


def take_all(_body: bytes) -> bool:
    """Accepts any answer."""
    return True


class Engine(Protocol):
    """What a bridge needs of what carries its bodies."""

    async def serve(self, subject: str, handler: Handler, /) -> Stop:
        """Has a handler answer the calls of a subject, until that is stopped.

        When this returns, calls that are made at the same node arrive; those of others, as soon as the nodes have told
        each other.  Without a connection it returns at once, and is so from the next one on.

        A handler gives a body back; or a :class:`Later`; or it is a coroutine function, and runs in a task of the
        engine's.  Calls run beside each other, and only so many of one subject at a time: others wait, or are lost
        where too many wait; those of other subjects do not wait for them.  An answer that is made while there is no
        connection waits for the next one, some seconds.  A handler does not raise: what it raises is logged, and nobody
        is answered.  Where several serve one subject, all of them are called, and the first answer that is accepted is
        the one.

        Stopping returns when no more calls come; those that run are answered.

        Where its node does not permit it, that is raised; and where a later one does not, it is logged, and asked for
        again and again: it may be permitted one day.

        Raises:
            ValueError: that is no subject.
            NotAllowed: as above; it is not served.
            EngineClosed: there is no engine any more.
        """
        ...

    async def call(self, subject: str, body: bytes, /, *, within: float, accept: Accept = take_all) -> bytes:
        """The answer of whoever serves a subject.

        Args:
            subject: which.
            body: borrowed; the engine has a copy when this first waits.
            within: seconds that it may take altogether.
            accept: whether that is an answer; what is refused is dropped, and another one waited for.  Others who use
                the engine may answer, too: whoever wants none but the server's answer opens it here.

        Raises:
            NotSent: as above; NobodyThere among them.
            Unanswered: as above.
            NotAllowed: its node does not permit it; that is said at once.
            ValueError: that is no subject.
        """
        ...

    async def watch(self, subject: str, watcher: Watcher, /) -> Stop:
        """Has a watcher told of each body that is sent to a subject, until that is stopped.

        One after the other, in the order in which they come; those that come faster than they are taken are lost at
        last.  What a watcher raises is logged, and it is told of the next.  All who watch are told.  A subject is
        either served and called, or watched and sent to.

        Raises:
            ValueError: that is no subject.
            NotAllowed: as for serve().
            EngineClosed: there is no engine any more.
        """
        ...

    async def send(self, subject: str, body: bytes, /) -> None:
        """Sends a body to all who watch a subject, if anybody does; nothing is said of who that was.

        That its node does not permit it is logged, once.

        Raises:
            NotSent: as above; but not NobodyThere.
            ValueError: that is no subject.
        """
        ...

    async def close(self, *, within: float = CLOSING) -> None:
        """Ends it, once: no more is served and watched, handlers that run are answered, as far as time permits.

        Then they are cancelled; calls of this engine that wait are Unanswered, and nothing is sent any more.  The
        second time it waits for the first.
        """
        ...


def check(subject: str, body: bytes = b"", within: float = 1) -> None:
    """Refuses what no engine carries.

    Raises:
        NotSent: no time is left for it.
        ValueError: that is no subject.
        TooLong: the body is longer than bodies may be.
    """
    _check_subject(subject)
    if len(body) > LARGEST:
        raise TooLong(f"a body has {len(body):,} bytes, and may have {LARGEST:,}")
    if within <= 0:
        raise NotSent("no time is left to send it in")


@functools.lru_cache(1000)
def _check_subject(subject: str) -> None:
    if len(subject) > _LONGEST_SUBJECT or not _SUBJECT.fullmatch(subject):
        raise ValueError(
            f"a subject is of letters, digits, - and _, with dots between them, {_LONGEST_SUBJECT} at most: {subject!r}"
        )
