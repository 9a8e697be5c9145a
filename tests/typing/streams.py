"""Streams: iterators as results and as arguments, and their twins."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
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


class Text(cm.Interface):
    @cm.method
    def count(self, lines: Iterator[str], most: int = 9) -> int: ...
    @cm.method
    def grep(self, lines: Iterator[str], word: str, other: Iterator[bytes] | None = None) -> Iterator[str]: ...


class TextServer(Text):
    def count(self, lines: Iterator[str], most: int = 9) -> int:
        for line in cm.keep(lines):
            assert_type(line, str)
        return most

    def grep(self, lines: Iterator[str], word: str, other: Iterator[bytes] | None = None) -> Iterator[str]:
        yield from (line for line in lines if word in line)


class AsyncText(cm.Interface):
    @cm.method
    async def count(self, lines: AsyncIterator[str], most: int = 9) -> int: ...
    @cm.method
    def grep(self, lines: AsyncIterator[str], word: str) -> AsyncIterator[str]: ...


class AsyncTextServer(AsyncText):
    async def count(self, lines: AsyncIterator[str], most: int = 9) -> int:
        async for line in lines:
            assert_type(line, str)
        return most

    async def grep(self, lines: AsyncIterator[str], word: str) -> AsyncIterator[str]:
        async for line in lines:
            yield line


async def awaited_lines() -> AsyncIterator[str]:
    yield ""


def give(text: Text, log: Log) -> None:
    assert_type(text.count(iter(["a"]), most=3), int)
    assert_type(text.count(text.grep(log.lines(3), "a", iter([b""]))), int)
    text.count(line for line in log.lines(3))
    text.count(["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text.count(iter([1]))  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    text.count(awaited_lines())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def give_awaited(text: AsyncText, log: AsyncLog) -> None:
    assert_type(await text.count(text.grep(log.lines(3), "a")), int)
    assert_type(await text.count(awaited_lines()), int)
    await text.count(iter(["a"]))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Closable(cm.Interface):
    @cm.method
    def lines(self) -> Generator[str, None, None]: ...


class ClosableServer(Closable):
    def lines(self) -> Generator[str, None, None]:
        yield ""


class AsyncClosable(cm.Interface):
    @cm.method
    def lines(self) -> AsyncGenerator[str, None]: ...


class AsyncClosableServer(AsyncClosable):
    async def lines(self) -> AsyncGenerator[str, None]:
        yield ""


class ClosableTwin(cm.Interface):
    lines = cm.awaitable_stream(Closable.lines)


def end(closable: Closable, log: Log) -> None:
    with contextlib.closing(closable.lines()) as lines:
        assert_type(next(lines), str)
    lines.close()
    log.lines(3).close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def end_awaited(closable: AsyncClosable, twin: ClosableTwin) -> None:
    async with contextlib.aclosing(closable.lines()) as lines:
        assert_type(await anext(lines), str)
    await lines.aclose()
    assert_type(await anext(twin.lines()), str)
