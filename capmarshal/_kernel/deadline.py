"""Deadlines: until when the calls made here may take.

A deadline is an absolute reading of CLOCK_MONOTONIC in nanoseconds, so that retries and nested calls need no
arithmetic.  It lives in a context variable: each thread, task and server method has its own.

Blocks need not end in the order in which they began: one in a generator ends when that is closed, perhaps in another
context.  So what blocks put in force remembers which they are, and the end of each takes away its own limit only.
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


class _Block:
    """One time that a block was entered.

    Attributes:
        until: its own limit.
        by: what set it, and to how many seconds.
        token: proves which context it was entered in.
        ended: it was left, and some context may not know that yet.
    """

    __slots__ = ("by", "ended", "token", "until")

    def __init__(self, until: int, by: tuple[str, float | None]) -> None:
        self.until = until
        self.by = by
        self.token: Token[int] | None = None
        self.ended = False

    def leave_here(self) -> bool:
        """Ends it, if it was entered in the current context; whether that is so.

        Contexts that were copied from this one within the block keep the limit: tasks that it started.
        """
        here = current.get()
        try:
            current.reset(self.token)  # type: ignore[arg-type]  # it was entered
        except ValueError:
            return False
        if isinstance(here, _Bounded) and self in here.blocks:
            current.set(_earliest(here.outside, tuple(block for block in here.blocks if block is not self)))
        else:
            # The limit of a call hides it, and will be taken back when that is over.
            self.ended = True
            current.set(here)
        return True


class _Bounded(int):
    """A deadline that blocks have put in force: the earliest of theirs, and of what is in force outside of them."""

    # An int of a kind of its own has no slots.
    outside: int
    blocks: tuple[_Block, ...]


def _earliest(outside: int, blocks: tuple[_Block, ...]) -> int:
    """What is in force within these blocks."""
    if not blocks:
        return outside
    bounded = _Bounded(min(outside, *(block.until for block in blocks)))
    bounded.outside, bounded.blocks = outside, blocks
    return bounded


def _without_the_ended(deadline: int) -> int:
    """What remains of a deadline when blocks that ended in other contexts are taken out."""
    if isinstance(deadline, _Bounded) and any(block.ended for block in deadline.blocks):
        return _earliest(deadline.outside, tuple(block for block in deadline.blocks if not block.ended))
    return deadline


def in_force() -> int:
    """The deadline of what is done now."""
    deadline = current.get()
    if type(deadline) is int:
        return deadline
    deadline = _without_the_ended(deadline)
    current.set(deadline)
    # Plain: what a call sets in its turn knows nothing of these blocks.
    return int(deadline)


def origin() -> str:
    """What set the deadline that is in force, for the text of an error; empty if there is none."""
    if (deadline := in_force()) == FOREVER:
        return ""
    within = current.get()
    for block in within.blocks if isinstance(within, _Bounded) else ():
        if block.until == deadline:
            words, seconds = block.by
            return f"the deadline of {words.format(seconds)}"
    return "the deadline of this method's caller"


def spent(since: int) -> str:
    """How long something has taken since a reading of CLOCK_MONOTONIC, for the text of an error."""
    seconds = (time.monotonic_ns() - since) / _NANOSECONDS
    return f"{seconds:.1f} s" if seconds >= 1 else f"{max(seconds, 0.001):.2g} s"


def words_for(seconds: float | None, until: int) -> str:
    """When it was that time was up, for the text of an error.

    Args:
        seconds: that were given as an argument.
        until: what :func:`after` made of them.
    """
    return f"in {seconds} s" if seconds is not None and until != in_force() else f"before {origin()}"


def remaining() -> float:
    """The seconds that are left to what is done now, as :class:`timeout`, or a method's caller, has said.

    Never less than 0, and ``math.inf`` where there is no limit.  In a server's method: how long its caller waits.
    """
    return seconds_until(in_force())


def ahead(seconds: float | None) -> int:
    """The deadline that lies ``seconds`` ahead, whatever is in force; None is for ever."""
    if seconds is None:
        return FOREVER
    if seconds == 0:
        return NOW
    nanoseconds = seconds * _NANOSECONDS
    return FOREVER if nanoseconds > _FAR else time.monotonic_ns() + int(nanoseconds)


def _check(seconds: float | None) -> None:
    """Refuses what is no time to wait.

    Raises:
        TypeError: no number.
        ValueError: negative, or NaN.
    """
    if seconds is None:
        return
    try:
        is_time = seconds >= 0
    except TypeError:
        raise TypeError(f"a timeout is a number of seconds, or None for no limit, not {seconds!r}") from None
    if not is_time:
        raise ValueError(f"a timeout is a number of seconds, 0 or more, not {seconds!r}")


def seconds_until(deadline: int) -> float:
    """How long it is until a deadline: never less than 0, and infinite for one that is never."""
    return math.inf if deadline == FOREVER else max(deadline - time.monotonic_ns(), 0) / _NANOSECONDS


def after(seconds: float | None) -> int:
    """The deadline that lies ``seconds`` ahead, or the one already in force if that is earlier.

    Args:
        seconds: 0 does not wait at all; None sets no limit of its own.

    Raises:
        TypeError: neither None nor a number.
        ValueError: negative, or NaN.
    """
    if seconds is None:
        return in_force()
    _check(seconds)
    return min(in_force(), ahead(seconds))


class timeout:  # noqa: N801 - reads as a verb: with cm.timeout(2.0)
    """Bounds everything that capmarshal does within the ``with`` block.

    The calls made in the block have ``seconds`` in all, and so have the calls that their servers make in turn.  One
    that takes longer raises :class:`CallTimeout`.  Within another such block the earlier deadline holds.

    Args:
        seconds: 0 or more, from when the block is entered; None sets no limit of its own.

    Raises:
        TypeError: neither None nor a number.
        ValueError: negative, or NaN.
    """

    __slots__ = ("_blocks", "_seconds")

    # How a program writes it.
    _words = "cm.timeout({})"

    def __init__(self, seconds: float | None) -> None:
        _check(seconds)
        self._seconds = seconds
        # Where it has been entered and not left: the object may be shared, or entered again within itself.
        self._blocks: list[_Block] = []

    def __enter__(self) -> Self:
        block = _Block(ahead(self._seconds), (self._words, self._seconds))
        before = _without_the_ended(current.get())
        outside, blocks = (before.outside, before.blocks) if isinstance(before, _Bounded) else (before, ())
        block.token = current.set(_earliest(outside, (*blocks, block)))
        self._blocks.append(block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for block in reversed(tuple(self._blocks)):
            if block.leave_here():
                self._blocks.remove(block)
                return
        # Entered in another context, which sees it there.
        self._blocks.pop().ended = True


class proxy_timeout(timeout):  # noqa: N801 - as its base
    """The limit of one call, which its proxy was given by :meth:`Capability.cast`."""

    __slots__ = ()

    _words = "cast(timeout={})"


def check_proxy_timeout(seconds: float) -> None:
    """Refuses what is no limit for the calls of a proxy.

    Raises:
        TypeError: no number.
        ValueError: 0, with which no call could be made, negative, or NaN.
    """
    _check(seconds)
    if seconds == 0:
        raise ValueError("the timeout of a proxy is a number of seconds, more than 0")
