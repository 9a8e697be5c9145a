"""What the log has of an error: its traceback, and not more of a stranger's words than people read.

Nor does a stranger write lines of its own: of a text that is several, all but the first are marked as its.
"""

from __future__ import annotations

import itertools
import traceback
from typing import TYPE_CHECKING

from capmarshal._kernel.errors import name_of, printable, shortened
from capmarshal._protocol.raised import notes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# Characters of an error's own text, and of all that is written of it.
TEXT_MAX = 2_000
MOST = 8_000
# What a line of an error's text begins with, but for the first.
_MARK = "\n    | "
# Errors that it was raised from, or that are in its group, of which something is written.
_ERRORS_MAX = 16


def cut(error: BaseException) -> str:
    """An error's traceback, cut; empty where it is short, of plain lines, and may be written as logging does.

    Raises:
        Exception: whatever the error raises when it is asked for its text, or a signal handler meanwhile.
    """
    errors = list(itertools.islice(_with_others(error), _ERRORS_MAX + 1))
    if len(errors) <= _ERRORS_MAX and all(_is_plain(one) for one, _ in errors):
        whole = sum(map(len, traceback.format_exception(error)))
        if whole <= MOST:
            return ""
    return shortened("\n".join(_told(one, relation) for one, relation in reversed(errors[:_ERRORS_MAX])), MOST)


def _is_plain(error: BaseException) -> bool:
    """Whether an error's text is one short line, and so is each of its notes, of which nothing is obeyed."""
    text = str(error)
    return len(text) <= TEXT_MAX and text.isprintable() and all(map(str.isprintable, notes_of(error)))


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
    """One of them: where it was raised, and what it says."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    head = f"Traceback (most recent call last):\n{shortened(frames, MOST // 2)}" if frames else ""
    words = "\n".join([str(error), *notes_of(error)])
    # Shortened first, and again: one character may become ten.
    lines = shortened(words, TEXT_MAX).split("\n")
    words = shortened(_MARK.join(map(printable, lines)), TEXT_MAX)
    return f"{head}{name_of(type(error))}: {words}{relation}"
