"""What the log has of an error: its traceback, and not more of a stranger's words than people read."""

from __future__ import annotations

import itertools
import traceback
from typing import TYPE_CHECKING

from capmarshal._kernel.errors import name_of, printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

# Characters of an error's own text, and of all that is written of it.
TEXT_MAX = 2_000
MOST = 8_000
# Errors that it was raised from, or that are in its group, of which something is written.
_ERRORS_MAX = 16


def cut(error: BaseException) -> str:
    """An error's traceback, cut; empty where it is short, and may be written as logging does.

    Raises:
        Exception: whatever the error raises when it is asked for its text, or a signal handler meanwhile.
    """
    errors = list(itertools.islice(_with_others(error), _ERRORS_MAX + 1))
    if len(errors) <= _ERRORS_MAX and all(len(str(one)) <= TEXT_MAX for one, _ in errors):
        whole = sum(map(len, traceback.format_exception(error)))
        if whole <= MOST:
            return ""
    return shortened("\n".join(_told(one, relation) for one, relation in reversed(errors[:_ERRORS_MAX])), MOST)


def _with_others(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """An error, and all that is written with it, each with what it is to one before."""
    waiting = [(error, "")]
    known: set[int] = set()
    while waiting:
        one, relation = waiting.pop(0)
        if id(one) in known:
            continue
        known.add(id(one))
        yield one, relation
        if isinstance(one, BaseExceptionGroup):
            waiting += [(member, "\n(in the group below)") for member in one.exceptions[:_ERRORS_MAX]]
        before = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if before is not None:
            waiting.append((before, "\n(which led to the one below)"))


def _told(error: BaseException, relation: str) -> str:
    """One of them: where it was raised, and what it says, on one line."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    head = f"Traceback (most recent call last):\n{shortened(frames, MOST // 2)}" if frames else ""
    # Shortened first, and again: printable() may make ten characters of one.
    words = shortened(printable(shortened(str(error), TEXT_MAX)), TEXT_MAX)
    return f"{head}{name_of(type(error))}: {words}{relation}"
