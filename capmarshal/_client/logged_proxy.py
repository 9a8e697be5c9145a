"""A call that is logged at its client: see :mod:`capmarshal._kernel.call_log`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._capabilities.capability import Proxy, capability_behind
from capmarshal._client.knocking import exchange
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel.call_log import took, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Answer, Entries
    from capmarshal._typed.arguments import Given
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method

    Exchange: TypeAlias = Callable[[Door, bytes, Payload, Entries, Sequence[int]], Answer]


class _Counted:
    """Makes one call through a door, and counts what goes and what comes.

    Attributes:
        words: how much that was; or that it went through no channel, since it was inline or could not be sent.
    """

    def __init__(self) -> None:
        self.words = "through no channel"

    def exchange(self, door: Door, key: bytes, payload: Payload, entries: Entries, numbers: Sequence[int]) -> Answer:
        """As :func:`capmarshal._client.knocking.exchange`."""
        sent, came, descriptors = len(payload), 0, 0
        try:
            answer = exchange(door, key, payload, entries, numbers)
            if isinstance(answer, bytes):
                came = len(answer)
            elif isinstance(answer[1], Inbox):
                came, descriptors = len(answer[0]), answer[1].struct.count
            else:
                came, descriptors = len(answer[0].payload), len(answer[1])
            return answer
        finally:
            self.words = f"bytes: {sent} out, {came} in; descriptors: {len(numbers)} out, {descriptors} in"


def logged(invoke: Callable[[Proxy, Method, Given, Exchange], Any]) -> Callable[..., Any]:
    """Makes calls by ``invoke``, and logs each."""

    def invoke_and_log(proxy: Proxy, called: Method, arguments: Given) -> Any:
        counted, ended, began = _Counted(), "ok", time.monotonic_ns()
        try:
            return invoke(proxy, called, arguments, counted.exchange)
        except BaseException as error:
            ended = type(error).__qualname__
            raise
        finally:
            label = capability_behind(proxy).label
            write("called %s, entrypoint %r: %s in %s; %s", called.where, label, ended, took(began), counted.words)

    return invoke_and_log
