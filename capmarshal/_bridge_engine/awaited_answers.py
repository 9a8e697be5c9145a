"""Calls that wait for their answers, by an ID that the engine brings back with these."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from typing import TYPE_CHECKING

from capmarshal._kernel.prompt import Prompt

from .engine import Accept, EngineError, Unanswered

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_logger = logging.getLogger("capmarshal")

# Seconds between two looks at who has waited too long, at least: one timer rings for all of them.
_LOOKING = 0.001


class Awaited:
    """One call, and what it was answered; it waits as long as the block lasts."""

    __slots__ = ("_accept", "_answer", "_answers", "_within", "number", "subject", "until")

    def __init__(self, accept: Accept, subject: str, answers: AwaitedAnswers) -> None:
        """Not among those that wait yet."""
        self.subject = subject
        # Unguessable: whoever can't read what the engine carries can't answer.
        self.number: bytes = os.urandom(16).hex().encode()
        # By the clock of the event loop.
        self.until = math.inf
        self._within = math.inf
        self._accept = accept
        self._answers = answers
        self._answer: Prompt[bytes] = Prompt(answers.loop)

    def come(self, body: bytes) -> None:
        """An answer has come: another one than the first that is accepted is dropped."""
        if self._answer.is_done:
            return
        try:
            accepted = self._accept(body)
        except Exception:
            _logger.exception("an answer is dropped, since what was to accept it raised")
            return
        if accepted:
            self._answer.answer(body)

    def fail(self, error: EngineError) -> None:
        """There will be no answer."""
        self._answer.fail(error)

    async def wait(self, within: float) -> bytes:
        """The answer.

        Raises:
            Unanswered: it did not come within so many seconds.
            EngineError: what fail() was given.
        """
        self._within = within
        self._answers.look_after(self, within)
        return await self._answer

    def late(self) -> None:
        """It did not come in time."""
        self.fail(Unanswered(f"no answer within {self._within:g} s"))

    def __enter__(self) -> Self:
        self._answers.waiting[self.number] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._answers.waiting[self.number]


class AwaitedAnswers:
    """All calls of an engine that wait.

    Attributes:
        loop: in which they do.
        waiting: they, by their numbers.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.waiting: dict[bytes, Awaited] = {}
        # When it rings; it may do so for nothing: most calls are answered long before.
        self._rings = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, accept: Accept, subject: str = "") -> Awaited:
        """One more, as long as its block lasts."""
        return Awaited(accept, subject, self)

    def find(self, number: bytes) -> Awaited | None:
        """The one that has this number, if it still waits."""
        return self.waiting.get(number)

    def look_after(self, awaited: Awaited, within: float) -> None:
        """Has one told that it has waited for so many seconds."""
        awaited.until = until = self.loop.time() + within
        if until < self._rings:
            self._ring_at(until)

    def fail_those_of(self, subject: str, error: EngineError) -> None:
        """None of those to a subject will be answered; in whichever case its letters are."""
        for awaited in list(self.waiting.values()):
            if awaited.subject.lower() == subject.lower():
                awaited.fail(error)

    def fail_all(self, words: str) -> None:
        """None of them will be answered."""
        # Before anybody is told: who is may wait anew, and has a timer of its own then.
        if self._timer is not None:
            self._timer.cancel()
            self._rings, self._timer = math.inf, None
        for awaited in list(self.waiting.values()):
            awaited.fail(Unanswered(words))

    def _ring_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = when
        self._timer = self.loop.call_at(when, self._look)

    def _look(self) -> None:
        self._rings, self._timer = math.inf, None
        now = self.loop.time()
        for awaited in list(self.waiting.values()):
            if awaited.until <= now:
                awaited.late()
        # Whoever was told may have begun to wait anew.
        soonest = min((awaited.until for awaited in self.waiting.values() if awaited.until > now), default=math.inf)
        if soonest < self._rings:
            self._ring_at(max(soonest, now + _LOOKING))
