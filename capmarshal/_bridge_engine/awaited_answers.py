"""Calls that wait for their answers, by an ID that the engine brings back with these."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from .engine import Accept, EngineError, Unanswered

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_logger = logging.getLogger("capmarshal")


class Awaited:
    """One call, and what it was answered; it waits as long as the block lasts."""

    def __init__(self, accept: Accept, subject: str, waiting: dict[str, Awaited]) -> None:
        """Not among those that wait yet."""
        self.subject = subject
        # Unguessable: whoever can't read what the engine carries can't answer.
        self.number: str = os.urandom(16).hex()
        self._accept = accept
        self._waiting = waiting
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def come(self, body: bytes) -> None:
        """An answer has come: another one than the first that is accepted is dropped."""
        if self._answer.done():
            return
        try:
            accepted = self._accept(body)
        except Exception:
            _logger.exception("an answer is dropped, since what was to accept it raised")
            return
        if accepted:
            self._answer.set_result(body)

    def fail(self, error: EngineError) -> None:
        """There will be no answer."""
        if not self._answer.done():
            self._answer.set_exception(error)

    async def wait(self, within: float) -> bytes:
        """The answer.

        Raises:
            Unanswered: it did not come within so many seconds.
            EngineError: what fail() was given.
        """
        late = asyncio.get_running_loop().call_later(within, self._late, within)
        try:
            return await self._answer
        finally:
            late.cancel()

    def _late(self, within: float) -> None:
        self.fail(Unanswered(f"no answer within {within:g} s"))

    def __enter__(self) -> Self:
        self._waiting[self.number] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._waiting[self.number]
        if not self._answer.cancel() and not self._answer.cancelled():
            # Looked at: asyncio has nothing to say of an error that nobody has seen.
            self._answer.exception()


class AwaitedAnswers:
    """All calls of an engine that wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, Awaited] = {}

    def expect(self, accept: Accept, subject: str = "") -> Awaited:
        """One more, as long as its block lasts."""
        return Awaited(accept, subject, self._waiting)

    def find(self, number: str) -> Awaited | None:
        """The one that has this number, if it still waits."""
        return self._waiting.get(number)

    def fail_those_of(self, subject: str, error: EngineError) -> None:
        """None of those to a subject will be answered; in whichever case its letters are."""
        for awaited in list(self._waiting.values()):
            if awaited.subject.lower() == subject.lower():
                awaited.fail(error)

    def fail_all(self, words: str) -> None:
        """None of them will be answered."""
        for awaited in list(self._waiting.values()):
            awaited.fail(Unanswered(words))
