"""A call that is logged at its client: see :mod:`capmarshal._kernel.call_log`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._capabilities.capability import Proxy, capability_behind
from capmarshal._capabilities.identity import whose_in
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel.call_log import took, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Answer, Entries
    from capmarshal._typed.arguments import Given
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method

    Exchange: TypeAlias = Callable[[Door, bytes, Payload, Entries, Sequence[int]], Answer]


class Line:
    """The line of one call, which is written when the block ends.

    Args:
        proxy: that is called.
        called: the method.
    """

    def __init__(self, proxy: Proxy, called: Method) -> None:
        self._proxy, self._called = proxy, called
        # Inline, or not sent.
        self._words = "through no channel"

    def __enter__(self) -> Self:
        self._began = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        whose, where = whose_in(capability_behind(self._proxy).name), self._called.where
        ended = "ok" if kind is None else self.ended_by(kind)
        write("called %s, %s: %s in %s; %s", where, whose, ended, took(self._began), self._words)

    def ended_by(self, kind: type[BaseException]) -> str:
        """What is said of a call that such an error has ended."""
        return kind.__qualname__

    def count(self, payload: Payload, numbers: Sequence[int], answer: Answer | None) -> None:
        """Counts what goes through a channel, and what comes."""
        came = descriptors = 0
        if isinstance(answer, bytes):
            came = len(answer)
        elif answer is not None and isinstance(answer[1], Inbox):
            came, descriptors = len(answer[0]), answer[1].struct.count
        elif answer is not None:
            came, descriptors = len(answer[0].payload), len(answer[1])
        sent = len(payload), came, len(numbers), descriptors
        self._words = "bytes: {} out, {} in; descriptors: {} out, {} in".format(*sent)


def logged(invoke: Callable[[Proxy, Method, Given, Exchange], Any], exchange: Exchange) -> Callable[..., Any]:
    """Makes calls by ``invoke``, through a door by ``exchange``, and logs each."""

    def invoke_and_log(proxy: Proxy, called: Method, arguments: Given) -> Any:
        with Line(proxy, called) as line:

            def counted(door: Door, key: bytes, payload: Payload, entries: Entries, numbers: Sequence[int]) -> Answer:
                line.count(payload, numbers, None)
                answer = exchange(door, key, payload, entries, numbers)
                line.count(payload, numbers, answer)
                return answer

            return invoke(proxy, called, arguments, counted)

    return invoke_and_log
