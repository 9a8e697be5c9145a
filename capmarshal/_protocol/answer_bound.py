"""How large the answers may be that are waited for: by a server, the items of a stream that was given as an argument.

Who gives a stream makes its items, and may be a stranger: what they cost is bounded by the entrypoint that takes them.
An answer in parts is refused before it has come, any other one before it is decoded.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol


class Bound(Protocol):
    """What one answer may have at most."""

    def too_large(self, size: int, descriptors: int, /) -> str:
        """Why an answer is more than is taken; empty if it is not."""
        ...


class AnswerBound(NamedTuple):
    """What the answers that bring items may have at most.

    Attributes:
        whose: the label of the entrypoint that takes them.
        max_bytes: of one.
        max_descriptors: of one.
    """

    whose: str
    max_bytes: int
    max_descriptors: int

    def too_large(self, size: int, descriptors: int) -> str:
        """Why an answer is more than is taken; empty if it is not."""
        came, most, option = f"{size} bytes", self.max_bytes, "max_bytes"
        if size <= most:
            came, most, option = f"{descriptors} descriptors", self.max_descriptors, "max_descriptors"
            if descriptors <= most:
                return ""
        return (
            f"an item of a stream that is an argument has {came}; "
            f"the maximum of entrypoint {self.whose!r}, which takes it, is {most} ({option})"
        )


# Of the items that are taken in this context.  What makes them may run in it, too, and make calls of its own.
of_items: ContextVar[AnswerBound | None] = ContextVar("capmarshal.bound_of_items", default=None)
# Of the answer that is waited for in this context; None: what a client takes of any server's.
in_force: ContextVar[Bound | None] = ContextVar("capmarshal.answer_bound", default=None)
