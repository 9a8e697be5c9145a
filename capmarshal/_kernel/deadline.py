"""Deadlines: until when the calls made here may take.

A deadline is an absolute reading of CLOCK_MONOTONIC in nanoseconds, so that retries and nested calls need no
arithmetic.  It lives in a context variable: each thread, task and server method has its own.
"""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from capmarshal._kernel.native import FOREVER, NOW

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType
    from typing import Self

_NANOSECONDS = 1_000_000_000
# About 146 years.  Further away than that is for ever.
_FAR = 1 << 62

current: ContextVar[int] = ContextVar("capmarshal.deadline", default=FOREVER)


def after(seconds: float | None) -> int:
    """The deadline that lies ``seconds`` ahead, or the one already in force if that is earlier.

    Args:
        seconds: 0 does not wait at all; None sets no limit of its own.

    Raises:
        ValueError: negative, or not a number.
    """
    if seconds is None:
        return current.get()
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"a timeout is a number of seconds, 0 or more, not {seconds!r}")
    if seconds == 0:
        return NOW
    nanoseconds = seconds * _NANOSECONDS
    return min(current.get(), FOREVER if nanoseconds > _FAR else time.monotonic_ns() + int(nanoseconds))


class timeout:  # noqa: N801 - reads as a verb: with cm.timeout(2.0)
    """Bounds everything that capmarshal does within the ``with`` block.

    The calls made in the block have ``seconds`` in all, and so have the calls that their servers make in turn.  One
    that takes longer raises :class:`CallTimeout`.  Within another such block the earlier deadline holds.

    Args:
        seconds: 0 or more, from when the block is entered.

    Raises:
        ValueError: negative, or not a number.
    """

    __slots__ = ("_seconds", "_tokens")

    def __init__(self, seconds: float) -> None:
        if math.isnan(seconds) or seconds < 0:
            raise ValueError(f"a timeout is a number of seconds, 0 or more, not {seconds!r}")
        self._seconds = seconds
        self._tokens: list[Token[int]] = []

    def __enter__(self) -> Self:
        self._tokens.append(current.set(after(self._seconds)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The object may be shared, so the last token may be another context's, which cannot be reset here.
        for token in reversed(tuple(self._tokens)):
            try:
                current.reset(token)
            except ValueError:
                continue
            self._tokens.remove(token)
            return
