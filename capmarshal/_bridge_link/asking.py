"""A question and its answer, both sealed: with a token itself, or with what a link has of its own."""

from __future__ import annotations

from typing import TypeVar

from .messages import ANSWER, REFUSED, Refused, read, written
from .sealing import Label, NotGenuine, Seal

M = TypeVar("M")


class NotTaken(Exception):
    """A question was refused by the other bridge: it has had no effect, and never will.

    Attributes:
        clock: what the other's clock shows, where the question came after it had expired.
    """

    def __init__(self, words: str, clock: int | None = None) -> None:
        super().__init__(words)
        self.clock = clock


class Asked:
    """One question.

    Attributes:
        body: it, as the engine carries it.
    """

    def __init__(self, label: Label, question: object, asks: Seal, hears: Seal) -> None:
        """One that is sent once.

        Args:
            label: of the question, with an ID that is used once.
            question: a message.
            asks: what it is sealed with.
            hears: what opens answers.
        """
        self.body = asks.seal(label, written(question))
        self._call = label.call
        self._kinds = (label.kind | ANSWER, REFUSED)
        self._hears = hears
        self._came, self._plain = REFUSED, b""

    def accept(self, body: bytes) -> bool:
        """Whether that is its answer, which is kept then: others may answer, too."""
        try:
            label, plain = self._hears.open(body)
        except NotGenuine:
            return False
        if label.call != self._call or label.kind not in self._kinds:
            return False
        self._came, self._plain = label.kind, plain
        return True

    def answer(self, kind: type[M]) -> M:
        """What was accepted.

        Raises:
            NotTaken: the question was refused.
            NotGenuine: the answer is no such message; the question was taken.
        """
        if self._came == REFUSED:
            refused = read(self._plain, Refused)
            raise NotTaken(refused.words, refused.clock)
        return read(self._plain, kind)


class Answers:
    """Those of one place."""

    def __init__(self, seal: Seal, lease: bytes) -> None:
        """What they are sealed with, and whose lease they name."""
        self._seal = seal
        self._lease = lease

    def answer(self, question: Label, answer: object) -> bytes:
        """The answer to a question, as the engine carries it."""
        return self._sealed(question, question.kind | ANSWER, answer)

    def refusal(self, question: Label, words: str, clock: int | None = None) -> bytes:
        """That it was not taken; and what the clock shows here, where it came after it had expired."""
        return self._sealed(question, REFUSED, Refused(words, clock))

    def _sealed(self, question: Label, kind: int, answer: object) -> bytes:
        return self._seal.seal(Label(kind, question.call, self._lease), written(answer))
