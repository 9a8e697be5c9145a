"""A link: what two bridges have in common from when one has joined the other, until they lose each other.

Each asks the other at a subject of its own, and each question is sealed, says until when it may be taken, and is taken
once at most.  Every second one pings, which is asked again until it is answered: so nothing of what a ping says is lost
or taken twice.  Who is not heard of for as long as a lease is lost; and so is one of whom the engine says all the
time that nobody is there.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msgspec import Struct

from capmarshal._bridge_engine.engine import Engine, EngineClosed, Later, NobodyThere, NotSent, Stop, Unanswered

from . import lines
from .asking import Answers, Asked, NotTaken
from .clocks import TheirClock, lease_from, nanoseconds, now
from .messages import QUESTIONS, Kind, read
from .replays import Once, TooLate
from .sealing import CALL_BYTES, LEASE_BYTES, NO_LEASE, Direction, Label, NotGenuine, Seal, of_lease

if TYPE_CHECKING:
    from .tokens import Token

_logger = logging.getLogger("capmarshal")

# Seconds: between two pings; that one has for its answer; for which an engine may say that nobody is there, as when the
# other goes to another node.
PINGING = 1.0
_PING_WITHIN = 1.0
NOBODY = 2.5

# Questions that are asked once, and of whose refusal it is believed that they have had no effect.
_WITH_EFFECTS = (Kind.CALL, Kind.OPEN)

M = TypeVar("M")
T = TypeVar("T")
# Answers a question by a message: at once, or by a coroutine; or by what sealed() made of one, later.
Answering: TypeAlias = Callable[[Label, Any], Any]


class Expired(NotSent):
    """A question came after it had expired, and was not taken: another one may be sent in its place.

    The other's clock is taken for slower than it is by as long as its last answer took: so it may have expired too
    early, and what is sent next does not.
    """


class LinkLost(Exception):
    """The other bridge is lost, and what was asked may have been taken."""


class Link:
    """One of two ends.

    Attributes:
        token: its own: what all that goes by it is sealed with.
        other: the name of the other bridge.
        lease: of this end.
        clock: the other's, of which nothing is known until it has joined.
        instance: which start of the other was joined; empty where it has joined this one.
        has_come: whether a question that is late has come before.
        lost: why the other is lost; empty as long as it is not.
    """

    def __init__(self, engine: Engine, token: Token, *, ours: str, other: str, made_by_us: bool) -> None:
        """A link that is not joined yet.

        Args:
            engine: that carries it; borrowed.
            token: whose key seals all of it; its exporter is the one who was joined.
            ours: the name of this bridge.
            other: the name of the other.
            made_by_us: whether this one joined the other.
        """
        self.token = token
        self.other = other
        self.lost = ""
        self._engine = engine
        # Where each is asked.
        at_exporter = token.subject
        at_importer = f"cm.{ours if made_by_us else other}.{token.subject.rpartition('.')[2]}"
        out, back = Direction.TO_EXPORTER, Direction.TO_IMPORTER
        if not made_by_us:
            out, back = back, out
        self._here, self._there = (at_importer, at_exporter) if made_by_us else (at_exporter, at_importer)
        # A question to the one, and its answer, go opposite ways, and both are of the subject where it was asked.
        self._asks, self._hears = Seal(token, out, self._there), Seal(token, back, self._there)
        self.lease = os.urandom(LEASE_BYTES)
        self._takes, self._answers = Seal(token, back, self._here), Answers(Seal(token, out, self._here), self.lease)
        self._once = Once(self.lease, lease_from(now()))
        self._their_lease = NO_LEASE
        self.clock = TheirClock(0)
        self.instance = b""
        self._answering: dict[int, Answering] = {}
        self._stop: Stop | None = None
        self._unreached_since: int | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        # Those that wait for an answer; and of these, who was told that the other is lost.
        self._asking: set[asyncio.Task[Any]] = set()
        self._told: set[asyncio.Task[Any]] = set()
        self._at_loss: list[Callable[[str], None]] = []
        self.has_come: Callable[[Label], bool] = lambda _label: False

    # Beginning and end ---------------------------------------------------------------------------------------------

    def answer(self, kind: Kind, answering: Answering) -> None:
        """Has questions of a kind answered: by a message, by a coroutine's, by a Later; or by raising NotTaken."""
        self._answering[kind] = answering

    def at_loss(self, do: Callable[[str], None]) -> None:
        """Has something done when the other is lost, with the reason; in the order in which it was said."""
        self._at_loss.append(do)

    async def serve(self) -> None:
        """Answers from here on.

        Raises:
            EngineClosed: there is no engine any more.
            NotAllowed: its node does not permit it.
            LinkLost: the other was lost meanwhile.
        """
        stop = await self._engine.serve(self._here, self._serve)
        if self.lost:
            self._end(stop)
            raise LinkLost(self.lost)
        self._stop = stop

    def joined(self, their_lease: bytes, clock: int) -> None:
        """The other is there, and this is its lease, and what its clock shows."""
        self._their_lease = their_lease
        self.clock.show(clock)

    def renew(self) -> int:
        """What the own clock shows, to be told: what is sent after that may be taken for as long as a lease."""
        shown = now()
        self._once.renew(lease_from(shown))
        return shown

    def run(self, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Has something done beside, until it has ended or the other is lost."""
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def adopt(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Has a task cancelled when the other is lost, and waited for when this is closed."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def lose(self, why: str) -> None:
        """The other is lost: whoever waits for it is told.  Does nothing the second time."""
        if self.lost:
            return
        self.lost = why
        lines.links.log(logging.INFO, "bridge: the link with %s has ended: %s", self.other, why)
        for do in self._at_loss:
            try:
                do(why)
            except Exception as error:  # noqa: BLE001 - logged; others wait to be told, too
                lines.faults.log(logging.ERROR, "bridge: a fault at the loss of %s", self.other, error=error)
        self._told |= self._asking
        for task in self._told:
            task.cancel()
        current = asyncio.current_task()
        for task in tuple(self._tasks):
            if task is not current:
                task.cancel()
        if self._stop is not None:
            self._end(self._stop)

    async def close(self, why: str) -> None:
        """Ends it, and waits until nothing of it runs any more."""
        self.lose(why)
        current = asyncio.current_task()
        while others := [task for task in self._tasks if task is not current]:
            await asyncio.wait(others)

    def _end(self, stop: Stop) -> None:
        stopping = asyncio.create_task(_quietly(stop()))
        self._tasks.add(stopping)
        stopping.add_done_callback(self._tasks.discard)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            lines.faults.log(logging.ERROR, "bridge: a fault in the link with %s", self.other, error=error)
            self.lose(f"a fault here: {type(error).__name__}")

    # Asking --------------------------------------------------------------------------------------------------------

    def new_id(self) -> bytes:
        """Of a question."""
        return os.urandom(CALL_BYTES)

    async def ask(self, kind: Kind, question: Any, answer: type[M], *, within: float, number: bytes | None = None) -> M:
        """Asks once.

        Args:
            kind: of the question.
            question: what is asked.
            answer: what kind of message is due.
            within: seconds to wait.
            number: the question's ID, if it has one; an ID is used once.

        Raises:
            NotSent: it has not reached the other, and never will; Expired among them.
            Unanswered: it may have; or may yet, for as long as it is valid.
            NotTaken: the other has refused it.
            LinkLost: the other is lost, and nothing was sent.
            NotGenuine: the answer is none; it was taken.
        """
        if self.lost:
            raise LinkLost(self.lost)
        number = number or self.new_id()
        label = Label(kind, number, self._their_lease, expires=self.clock.expiry(within))
        asked = Asked(label, question, self._asks, self._hears)
        try:
            await self._answered(asked, within)
        except NobodyThere:
            self._unreached()
            raise
        except (NotSent, Unanswered):
            # Whatever else it says, it is not that all the time.
            self._unreached_since = None
            raise
        self._unreached_since = None
        try:
            return asked.answer(answer)
        except NotTaken as error:
            if error.clock is None:
                raise
            self.clock.show(error.clock)
            raise Expired(str(error)) from None

    async def _answered(self, asked: Asked, within: float) -> None:
        """Returns when a question is answered: nobody waits for that any more when the other is lost.

        As by asyncio.timeout(), which costs as much as to seal the question.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is awaited
        cancelled_before = task.cancelling()
        self._asking.add(task)
        try:
            await self._engine.call(self._there, asked.body, within=within, accept=asked.accept)
        except asyncio.CancelledError:
            if task in self._told and task.uncancel() <= cancelled_before:
                raise Unanswered(self.lost) from None
            raise
        finally:
            self._asking.discard(task)
            self._told.discard(task)
            # It keeps what has cancelled it, and that this frame.
            del task

    async def insist(self, kind: Kind, question: Any, answer: type[M], *, pause: float = 0.02) -> M:
        """Asks until it is answered, for questions that may be taken more than once.

        Raises:
            NotTaken, LinkLost: as above.
            NotGenuine: likewise.
        """
        while True:
            try:
                return await self.ask(kind, question, answer, within=_PING_WITHIN)
            except EngineClosed:
                self.lose("the engine was closed here")
            except (NotSent, Unanswered):
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.25)

    def _unreached(self) -> None:
        """The engine says that nobody is there: that is so for a moment, too, when the other goes to another node."""
        if self._unreached_since is None:
            self._unreached_since = now()
        elif now() - self._unreached_since > nanoseconds(NOBODY):
            self.lose("the engine says that nobody is there")

    # Answering -----------------------------------------------------------------------------------------------------

    def bar(self, kind: Kind, number: bytes) -> bool | None:
        """Has a question that has not come never be taken; whether it has not, None where that can't be said now."""
        try:
            return self._once.bar(kind, number, now())
        except NotGenuine:
            return None

    def _serve(self, body: bytes) -> bytes | Later | Awaitable[bytes]:
        """The answer to whatever comes; an empty one is none to who has the key."""
        if of_lease(body) != self.lease:
            # Of who has not joined: to open it costs much more than to send it.
            lines.strays.one()
            return b""
        try:
            label, plain = self._takes.open(body)
        except NotGenuine:
            lines.strays.one()
            return b""
        try:
            self._once.take(label, now())
        except TooLate as error:
            # Unless it has come before: what is late then is a copy.
            if self.has_come(label):
                return b""
            return self._answers.refusal(label, str(error), self.renew())
        except NotGenuine:
            # It is a copy; or one will be taken that comes later.
            return b""
        answering = self._answering.get(label.kind)
        if answering is None or self.lost:
            return self._answers.refusal(label, self.lost or f"nobody answers questions of kind {label.kind} here")
        try:
            answer = answering(label, read(plain, QUESTIONS[label.kind]))
        except (NotTaken, NotGenuine) as error:
            return self._answers.refusal(label, str(error))
        except Exception:  # noqa: BLE001 - told of, to both
            return self._fault(label)
        if isinstance(answer, Later):
            return answer
        if isinstance(answer, Struct):
            return self.sealed(label, answer)
        return self._awaited(label, answer)

    async def _awaited(self, label: Label, answer: Awaitable[Any]) -> bytes:
        try:
            return self.sealed(label, await answer)
        except (NotTaken, NotGenuine) as error:
            return self._answers.refusal(label, str(error))
        except Exception:  # noqa: BLE001 - told of, to both
            return self._fault(label)

    def _fault(self, label: Label) -> bytes:
        """What is answered where answering raised: questions that are asked until they are answered would never end."""
        _logger.exception("bridge: a fault where %s was answered", self.other)
        if label.kind in _WITH_EFFECTS:
            # It may have had one: what has become of it is asked for.
            return b""
        return self._answers.refusal(label, "there is a fault in it")

    def sealed(self, question: Label, answer: Any) -> bytes:
        """The answer to a question, as the engine carries it."""
        return self._answers.answer(question, answer)


async def _quietly(stopping: Awaitable[None]) -> None:
    try:
        await stopping
    except Exception:
        _logger.debug("bridge: a subject was not given up in order", exc_info=True)
