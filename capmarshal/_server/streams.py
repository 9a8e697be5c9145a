"""Streams, as their server has them: an object that gives the next items of an iteration, and lets it go at the end.

What came with the call that began it is the stream's, and closed with it: a generator looks at its arguments when the
first item is wanted, which is after that call.
"""

from __future__ import annotations

import operator
import time
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import reaper
from capmarshal._kernel.errors import name_of, with_article
from capmarshal._protocol.faults import Code, Failing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capmarshal._typed.method import Method
    from capmarshal._typed.table import Owned

# Nanoseconds: an item that took longer is not waited for with others behind it.
_SLOW = 1_000_000
# What a batch ends at: items, and roughly their bytes, where these are known without a look into them.
_MOST, _BYTES = 1 << 16, 48 << 10
# In the namespace of an interface by which items are pulled: the class that serves it.
_PRODUCER = "__capmarshal_producer__"


def class_for(method: Method, base: type) -> type[Any]:
    """The class of what serves a method's streams, derived from ``base``; made once."""
    pull: type = method.result
    known: type | None = vars(pull).get(_PRODUCER)
    if known is None:
        known = type(pull)(pull.__name__, (base, pull), {"__module__": base.__module__})
        setattr(pull, _PRODUCER, known)
    return known


class Batch:
    """Items that are sent together.

    Args:
        at_most: how many are wanted.
    """

    __slots__ = ("_at", "_bytes", "_most", "items")

    def __init__(self, at_most: int) -> None:
        self.items: list[Any] = []
        self._most = max(1, min(at_most, _MOST))
        self._bytes = 0
        self._at = time.monotonic_ns()

    def add(self, item: Any) -> bool:
        """Adds one; whether there is to be another."""
        self.items.append(item)
        self._bytes += len(item) if isinstance(item, (bytes, str)) else 0
        before, self._at = self._at, time.monotonic_ns()
        return len(self.items) < self._most and self._bytes < _BYTES and self._at - before < _SLOW


class Streaming:
    """What both kinds of streams have: what came with the call that began them.

    Args:
        method: that has begun it.
        owned: of its arguments; taken.
    """

    def __init__(self, method: Method, owned: Owned) -> None:
        self._where = method.where
        self._owned: Sequence[Any] = owned.produced

    def end(self) -> None:
        """Ends the iteration: nobody wants more of it.  Does nothing the second time."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Closes what came with the call.  Does nothing the second time."""
        owned, self._owned = self._owned, ()
        if owned:
            reaper.close(owned)


# What is done when nobody can pull from one any more, and the one method that it has for others.
END, PULLED = operator.methodcaller("end"), frozenset({b"next"})


class Producer(Streaming):
    """Serves one stream in a thread.

    Args:
        method: that has begun it.
        result: of that: what is iterated over.
        owned: of its arguments; taken, unless this raises.

    Raises:
        Failing: nothing can iterate over the result.
    """

    def __init__(self, method: Method, result: Any, owned: Owned) -> None:
        try:
            self._iterator: Iterator[Any] | None = iter(result)
        except TypeError:
            raise no_stream(result, "iterate over") from None
        super().__init__(method, owned)
        self._failure: BaseException | None = None

    def next(self, at_most: int) -> tuple[list[Any], bool]:
        """Gives so many of the next items at most, and whether these are the last."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._iterator is None:
            return [], True
        batch = Batch(at_most)
        try:
            for item in self._iterator:
                if not batch.add(item):
                    return batch.items, False
        except Exception as error:
            self.end()
            if not batch.items:
                raise
            # They were made before; it is raised in their stead the next time.
            self._failure = error
            return batch.items, False
        except BaseException:
            self.end()
            raise
        self.end()
        return batch.items, True

    def end(self) -> None:
        """Closes the iteration, if it is a generator.  Does nothing the second time."""
        iterator, self._iterator = self._iterator, None
        try:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        finally:
            self.let_go()


def no_stream(result: Any, what: str) -> Failing:
    """Says that a result is nothing that one can iterate over."""
    words = f"{with_article(name_of(type(result)))} is nothing to {what}, as the interface says; yield the items"
    return Failing(Code.UNSENDABLE, words)
