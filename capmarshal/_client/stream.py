"""A stream, as its receiver has it: an iterator, whose items are fetched some at a time when they are wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from capmarshal._capabilities.capability import capability_behind, has_timeout, timeout_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from capmarshal._capabilities.capability import Proxy
    from capmarshal._typed.method import Method

T = TypeVar("T")

# Items that are asked for at first, and at most: the first are wanted soon, and who takes many has them in few calls.
FIRST, MOST = 16, 1024


def timed_as(proxy: Proxy, called: Method, source: Any) -> Any:
    """A proxy of what a stream is pulled from, with the timeout of the one whose call has given that, if it has one."""
    if not has_timeout(proxy):
        return source
    return capability_behind(source).cast(called.result, timeout=timeout_of(proxy))


class Fetched(Generic[T]):
    """Items that have come and are not taken yet, and how many to ask for next."""

    __slots__ = ("at_most", "ended", "items")

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.at_most = FIRST
        self.ended = False

    def add(self, batch: tuple[list[T], bool]) -> None:
        """Adds what a call has brought."""
        items, self.ended = batch
        self.items.extend(items)
        if len(items) >= self.at_most:
            self.at_most = min(2 * self.at_most, MOST)


class Stream(Iterator[T]):
    """What iterates over a stream of another process.

    Args:
        source: a proxy of what it is pulled from.
    """

    def __init__(self, source: Any) -> None:
        self._source: Any = source
        self._fetched: Fetched[T] = Fetched()

    def __next__(self) -> T:
        """The next item, which is fetched with some that come after it, if it has not been.

        Raises:
            StopIteration: there is none; what the server's iteration has raised was raised before.
            CallTimeout, Disconnected: it has not come, and the stream has ended.
        """
        fetched = self._fetched
        while not fetched.items:
            if self._source is None:
                raise StopIteration
            try:
                fetched.add(self._source.next(fetched.at_most))
            except BaseException:
                self.close()
                raise
            if fetched.ended:
                self._source = None
        return fetched.items.popleft()

    def close(self) -> None:
        """Ends the stream: the server's iteration is closed.  Does nothing the second time."""
        self._source = None
        self._fetched.items.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        # What copy.copy() asks, too: each of two would have some of the items.
        raise TypeError("a stream is neither copied nor pickled: what goes to another process is its items")
