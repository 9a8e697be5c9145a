"""Deadlines: until when the calls made here may take.

A deadline is an absolute reading of CLOCK_MONOTONIC in nanoseconds, so that retries and nested calls need no
arithmetic.  It lives in a context variable: each thread, task and server method has its own.

Blocks need not end in the order in which they began: one in a generator ends when that is closed, perhaps in another
context.  So what blocks put in force remembers which they are, and the end of each takes away its own limit only.

Nor need they end as they should: what a signal handler raises may come before the first line of ``__exit__``.  So what
is in force also asks whether the object that was entered is still there, which the ``with`` statement keeps alive: when
it is gone, so is the block.  What keeps the object then keeps the limit: a name, and the exception itself while it is
handled.
"""

from __future__ import annotations

import math
import time
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from capmarshal._kernel.native import FOREVER, NOW
from capmarshal._kernel.numbers import check_seconds
from capmarshal._kernel.wrong_block import refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Token
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

_NANOSECONDS = 1_000_000_000
# About 146 years.  Further away than that is for ever.
_FAR = 1 << 62

current: ContextVar[int] = ContextVar("capmarshal.deadline", default=FOREVER)


class _Block:
    """One time that a block was entered.

    Args:
        until: its own limit.
        by: what set it, and to how many seconds.
        within: says what it is the block of, or None when that is gone.

    Attributes:
        token: proves which context it was entered in.
        ended: it was left, and some context may not know that yet.
        left: it was left in its own context, and copies of that keep the limit.
    """

    __slots__ = ("by", "ended", "left", "token", "until", "within")

    def __init__(self, until: int, by: tuple[str, float | None], within: Callable[[], object]) -> None:
        self.until = until
        self.by = by
        self.within = within
        self.token: Token[int] | None = None
        self.ended = self.left = False

    @property
    def over(self) -> bool:
        """Whether it is no longer in force wherever it was put."""
        return self.ended or (not self.left and self.within() is None)

    def leave_here(self) -> bool:
        """Ends it, if it was entered in the current context; whether that is so.

        Contexts that were copied from this one within the block keep the limit: tasks that it started.
        """
        here = current.get()
        try:
            current.reset(self.token)  # type: ignore[arg-type]  # it was entered
        except (ValueError, RuntimeError):
            # Entered elsewhere; or left before, when Ctrl-C kept __exit__() from noting that.
            return False
        if isinstance(here, _Bounded) and self in here.blocks:
            current.set(_earliest(here.outside, tuple(block for block in here.blocks if block is not self)))
            self.left = True
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
    if isinstance(deadline, _Bounded) and any(block.over for block in deadline.blocks):
        return _earliest(deadline.outside, tuple(block for block in deadline.blocks if not block.over))
    return deadline


def _within(before: int, block: _Block) -> int:
    """What is in force within one more block."""
    bounded = _Bounded(min(before, block.until))
    if isinstance(before, _Bounded):
        bounded.outside, bounded.blocks = before.outside, (*before.blocks, block)
    else:
        bounded.outside, bounded.blocks = before, (block,)
    return bounded


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
    if seconds is not None:
        check_seconds(seconds, f"a timeout is a number of seconds, 0 or more, or None for no limit, not {seconds!r}")


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

    __slots__ = ("__weakref__", "_blocks", "_seconds")

    # As errors name it.
    _said_as = "cm.timeout({})"

    def __init__(self, seconds: float | None) -> None:
        _check(seconds)
        self._seconds = seconds
        # Where it has been entered and not left: the object may be shared, or entered again within itself.
        self._blocks: list[_Block] = []

    if not TYPE_CHECKING:
        __aenter__, __aexit__ = refused(
            "a cm.timeout is entered by `with`, without `async`, also where what is in its block is awaited"
        )

    def __enter__(self) -> Self:
        block = _Block(ahead(self._seconds), (self._said_as, self._seconds), weakref.ref(self))
        before = _without_the_ended(current.get())
        bounded = _within(before, block)
        try:
            self._blocks.append(block)
            block.token = current.set(bounded)
        except BaseException:
            # Ctrl-C: there will be no __exit__().
            current.set(before)
            self._blocks.remove(block)
            raise
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


class option_timeout(timeout):  # noqa: N801 - likewise
    """The same for who has given the seconds to a command, as ``--timeout``: errors say that."""

    __slots__ = ()

    _said_as = "--timeout {:g}"


def _always() -> bool:
    """Says that what a block is of is there: its end is not left to ``__exit__``."""
    return True


def with_proxy_timeout(seconds: float, call: Callable[..., T], *arguments: object) -> T:
    """Makes a call within the limit that its proxy was given by :meth:`Capability.cast`."""
    before = current.get()
    bounded = _within(_without_the_ended(before), _of_a_proxy(seconds))
    # No with statement, which would call a function of ours: Ctrl-C may come before its first line, but not before
    # what is called here.
    try:
        current.set(bounded)
        return call(*arguments)
    finally:
        current.set(before)


async def await_with_proxy_timeout(seconds: float, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """The same of a call that is awaited; one that never ends is closed at some time, perhaps in another context."""
    before, block = current.get(), _of_a_proxy(seconds)
    bounded = _within(_without_the_ended(before), block)
    try:
        block.token = current.set(bounded)
    except BaseException:
        # Ctrl-C.
        current.set(before)
        raise
    try:
        return await call(*arguments)
    finally:
        block.leave_here()


def _of_a_proxy(seconds: float) -> _Block:
    return _Block(ahead(seconds), ("cast(timeout={})", seconds), _always)


def check_proxy_timeout(seconds: float) -> None:
    """Refuses what is no limit for the calls of a proxy.

    Raises:
        TypeError: no number.
        ValueError: 0, with which no call could be made, negative, or NaN.
    """
    _check(seconds)
    if seconds == 0:
        raise ValueError("the timeout of a proxy is a number of seconds, more than 0")
