"""A stream, as its receiver has it: an iterator, whose items are fetched some at a time when they are wanted.

Its receiver is the client of a call whose result it is, or the server of one that it is an argument of.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from capmarshal._capabilities.capability import capability_behind, has_timeout, timeout_of
from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import Closed, ProtocolError
from capmarshal._protocol.answer_bound import of_items
from capmarshal._typed.items_before import items_with
from capmarshal._typed.untaken import close_items

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from capmarshal._capabilities.capability import Proxy
    from capmarshal._protocol.answer_bound import AnswerBound

T = TypeVar("T")

# Items that are asked for at first, and at most: the first are wanted soon, and who takes many has them in few calls.
FIRST, MOST = 16, 1024
# Who gives items sends no more than this at once, of many: who takes less asks for one at a time.
_TOGETHER = 49 << 10


# Who takes the items of a stream that was not passed on.
_HERE = object()
# Why a stream gives no more.
_PASSED_ON = "was passed on as an argument: whoever was given it takes its items"
_WITH_THE_CALL = "was closed with the call that it came with: cm.keep(...) keeps one that is to outlive that"


def timed_as(proxy: Proxy, interface: type[Any], source: Any) -> Any:
    """A proxy of what a stream is pulled from, with the timeout of the one whose call has given that, if it has one.

    Args:
        proxy: of that call.
        interface: by which it is pulled.
        source: a proxy without.
    """
    if not has_timeout(proxy):
        return source
    return capability_behind(source).cast(interface, timeout=timeout_of(proxy))


def thrown(typ: Any, val: Any, tb: TracebackType | None) -> BaseException:
    """The error that is thrown into a generator, of what that is told: itself, or its class and more.

    Raises:
        TypeError: it is none.
    """
    error: BaseException
    if isinstance(typ, BaseException):
        error = typ
    elif isinstance(val, BaseException):
        error = val
    elif isinstance(typ, type) and issubclass(typ, BaseException):
        error = typ() if val is None else typ(val)
    else:
        raise TypeError(f"what is thrown is an exception, or its class, not {typ!r}")
    return error if tb is None else error.with_traceback(tb)


def _forget_frames(error: BaseException, handled: BaseException | None) -> None:
    """Has an error, and all that it comes of, know no frames: these know the payload, and who takes items.

    Args:
        error: it.
        handled: none of these, nor what that comes of.
    """
    known, left = {id(handled)}, [error]
    while left:
        each = left.pop()
        if id(each) not in known:
            known.add(id(each))
            each.__traceback__ = None
            left += filter(None, (each.__cause__, each.__context__))


class Fetched(Generic[T]):
    """Items that have come and are not taken yet, and how many to ask for next."""

    __slots__ = ("_taker", "at_most", "bound", "ended", "items", "later", "process", "why")

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.at_most = FIRST
        # Who takes them, once anybody does: added in one step, as two threads may want to.
        self._taker: dict[Literal["taker"], object] = {}
        # Whether all have come.
        self.ended = False
        # What may come at once; None: whatever a client takes of a server.
        self.bound: AnswerBound | None = None
        # Why there are no more, where that is not the end of the items.
        self.why = ""
        # An error that is raised when the items are taken which came before it.
        self.later: BaseException | None = None
        # Whose it is: a forked child has a copy.
        self.process = os.getpid()

    def wanted(self) -> int:
        """How many items are to come next, at most."""
        return 1 if self.bound is not None and self.bound.max_bytes < _TOGETHER else self.at_most

    def check(self) -> None:
        """Refuses to go on where it would give what is not all: also to who takes items once more after an error.

        Raises:
            Closed: says why.
        """
        if self.process != os.getpid():
            raise Closed("the stream is its parent's: this process is a fork of the one that takes its items")
        if self.why:
            raise Closed(f"the stream {self.why}")

    def fail(self, error: BaseException) -> None:
        """Notes what has ended the stream."""
        self.why = self.why or f"has ended before its items had: it raised {type(error).__name__}; begin another one"

    def begin(self) -> None:
        """Notes that items are taken here, before any is asked for.

        Raises:
            Closed: they are taken elsewhere, since meanwhile.
        """
        if self._taker.setdefault("taker", _HERE) is not _HERE:
            raise Closed(f"the stream {_PASSED_ON}")

    def pass_on(self) -> bool:
        """Has somebody else take the items from here on, unless any was asked for; whether it did."""
        elsewhere = object()
        if self._taker.setdefault("taker", elsewhere) is not elsewhere:
            return False
        self.why = _PASSED_ON
        return True

    def end_with_call(self) -> None:
        """Notes that the call has ended that the stream came with."""
        if not self.ended:
            self.why = self.why or _WITH_THE_CALL

    def add(self, batch: tuple[list[T], bool], wanted: int) -> None:
        """Adds what a call has brought.

        Args:
            batch: it.
            wanted: how many items there were to be at most.

        Raises:
            ProtocolError: these are more items than were wanted, or none though the stream goes on.
        """
        items, ended = batch
        if len(items) > wanted or not (items or ended):
            raise ProtocolError(f"{len(items)} items of a stream came where 1 to {wanted} were due")
        self.items.extend(items)
        self.ended = ended
        if len(items) >= self.at_most:
            self.at_most = min(2 * self.at_most, MOST)

    def keeps(self, error: BaseException, handled: BaseException | None) -> bool:
        """Adds the items that have come before what an error is about, which is raised when they are taken; if any.

        Args:
            error: it.
            handled: what whoever takes items was dealing with before, and which that error knows.

        Returns:
            Whether there were any.
        """
        items = items_with(error)
        if not items:
            return False
        self.items.extend(items)
        self.later = error
        _forget_frames(error, handled)
        return True

    def raise_later(self) -> None:
        """Raises an error behind the items that have been taken, if there is one."""
        later, self.later = self.later, None
        if later is not None:
            try:
                self.fail(later)
                raise later
            finally:
                # It knows this frame now.
                del later

    def close(self) -> None:
        """Drops what is not taken yet, and closes what is in that."""
        self.later = None
        items = tuple(self.items)
        self.items.clear()
        close_items(items)

    def __del__(self) -> None:
        # As of a loop that was left.  Nobody had these, so nobody has forgotten to close them.
        if self.items and process:
            self.close()


class Stream(Generator[T, None, None]):
    """What iterates over a stream of another process: a generator to whoever has it, of which nothing is caught.

    Args:
        source: a proxy of what it is pulled from.
    """

    def __init__(self, source: Any) -> None:
        self._source: Any = source
        self._fetched: Fetched[T] = Fetched()
        self._items = self._fetched.items
        self._closed = False

    def __next__(self) -> T:
        """The next item, which is fetched with some that come after it, if it has not been.

        Raises:
            StopIteration: there is none; what the server's iteration has raised was raised before.
            CallTimeout, Disconnected, Revoked, ProtocolError: it has not come, and the stream has ended.
            Closed: it has ended by an error before; or this process is a fork of the one that takes its items.
        """
        if self._fetched.process != os.getpid():
            self._fetched.check()
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                # Outside: it is nothing that an error of a call comes of.
                pass
            self._fetch()

    def _fetch(self) -> None:
        # Another thread may do the same, or close it or pass it on meanwhile.
        source, fetched = self._source, self._fetched
        fetched.raise_later()
        if source is None:
            fetched.check()
            raise StopIteration
        fetched.begin()
        wanted, before, handled = fetched.wanted(), of_items.get(), sys.exc_info()[1]
        try:
            of_items.set(fetched.bound)
            fetched.add(source.next(wanted), wanted)
        except BaseException as error:
            if not fetched.keeps(error, handled):
                fetched.fail(error)
                self.close()
                raise
            # There is no more to be had of it.
            self._source = None
        finally:
            of_items.set(before)
            del handled
        if self._closed:
            fetched.close()
        if fetched.ended:
            self._source = None

    def send(self, value: None, /) -> T:
        """As ``next()``.

        Raises:
            TypeError: it is something.
        """
        if value is not None:
            raise TypeError("a stream is sent nothing: its items are made elsewhere")
        return next(self)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> T:
        """Ends the stream, and raises this: whoever makes the items is told no more than that."""
        self.close()
        try:
            raise thrown(typ, val, tb)
        finally:
            # It knows this frame, and by that the method's, whose things would be kept.
            del typ, val, tb

    def close(self) -> None:
        """Ends the stream: the server's iteration is closed.  Does nothing the second time."""
        self._closed, self._source = True, None
        self._fetched.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        # What copy.copy() asks, too: each of two would have some of the items.
        raise TypeError("a stream is neither copied nor pickled: what goes to another process is its items")


def source_of(stream: Stream[Any]) -> Any:
    """What a stream is pulled from, for somebody else to pull, which ends the stream here.

    Args:
        stream: that may be taken from in other threads.

    Returns:
        A proxy; None where some of it was fetched, or it is closed: who wants the rest has it from here.

    Raises:
        Closed: it cannot be taken from any more.
    """
    fetched = stream._fetched  # noqa: SLF001 - of this module
    fetched.check()
    source = stream._source  # noqa: SLF001 - likewise
    if source is None or not fetched.pass_on():
        return None
    stream.close()
    return source


def end_with_call(stream: Stream[Any]) -> None:
    """Closes a stream with the call that it came with."""
    stream.close()
    stream._fetched.end_with_call()  # noqa: SLF001 - of this module


def bound_by(stream: Any, bound: AnswerBound) -> None:
    """Bounds what comes at once of a stream, of either kind, that is an argument of a call."""
    stream._fetched.bound = bound  # noqa: SLF001 - of this module
