"""Streams: iterators as results, and their twins."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import capmarshal as cm


class Log(cm.Interface):
    @cm.method
    def lines(self, since: int) -> Iterator[str]: ...


class LogServer(Log):
    def lines(self, since: int) -> Iterator[str]:
        yield str(since)


class AsyncLog(cm.Interface):
    lines = cm.awaitable_stream(Log.lines)


class AsyncTail(cm.Interface):
    @cm.method
    def tail(self) -> AsyncIterator[bytes]: ...


class AsyncTailServer(AsyncTail):
    async def tail(self) -> AsyncIterator[bytes]:
        yield b""


class Tail(cm.Interface):
    tail = cm.blocking_stream(AsyncTail.tail)


def follow(log: Log, tail: Tail) -> None:
    for line in log.lines(3):
        assert_type(line, str)
    for piece in tail.tail():
        assert_type(piece, bytes)
    log.lines("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def follow_awaited(log: AsyncLog, tail: AsyncTail) -> None:
    async for line in log.lines(3):
        assert_type(line, str)
    async for piece in tail.tail():
        assert_type(piece, bytes)
    await log.lines(3)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


cm.awaitable_stream(AsyncTail.tail)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
