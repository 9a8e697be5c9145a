"""A service of methods of every kind, and the same whose methods are awaited; run as a program, it serves one.

    python desk.py blocking|awaitable PATH

It says a line when it listens, and ends when its standard input does.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import io
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

import msgspec

import capmarshal as cm

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    """A place."""

    x: int
    y: float = 2.0
    raw: bytes = b""


@dataclasses.dataclass
class Attached:
    name: str
    file: io.BufferedReader | None = None


class Letter(msgspec.Struct, tag="letter"):
    text: bytes


class Parcel(msgspec.Struct, tag="parcel"):
    file: cm.Descriptor


class Node(msgspec.Struct):
    value: int
    below: list[Node] = []


class Box(cm.Interface, Generic[T]):
    """Keeps one thing."""

    @cm.method
    def kept(self) -> T:
        """What was added last."""


class Desk(Box[str]):
    """Where things are left.

    And taken.
    """

    @cm.method
    @cm.raises(KeyError, OSError)
    def add(self, line: str, times: int = 1, *, when: dt.datetime | None = None) -> int:
        """Adds a line; how many there are.

        Not twice.
        """

    @cm.method
    def nothing(self) -> None: ...

    @cm.method
    def echo(self, value: Any) -> Any: ...

    @cm.method
    def text_or(self, value: str | None, other: int | str = 5) -> list[Any]: ...

    @cm.method
    def digest(self, file: io.BufferedReader, /, salt: bytes = b"") -> bytes: ...

    @cm.method
    def save(self, file: io.BufferedWriter, text: str) -> int: ...

    @cm.method
    def size(self, data: cm.Dataspace) -> int: ...

    @cm.method
    def point(self, point: Point, colour: Colour = Colour.RED) -> Point: ...

    @cm.method
    def files(self, files: list[cm.Descriptor], more: Attached | None = None) -> list[str]: ...

    @cm.method
    def keyed(self, by_number: dict[int, bytes]) -> dict[int, bytes]: ...

    @cm.method
    def post(self, what: Letter | Parcel) -> str: ...

    @cm.method
    def tree(self, node: Node) -> Node: ...

    @cm.method
    def opened(self) -> io.BufferedReader: ...

    @cm.method
    def space(self) -> cm.Dataspace: ...

    @cm.method
    def attached(self) -> Attached: ...

    @cm.method
    def family(self, end: socket.socket) -> str: ...

    @cm.method
    def other(self, other: Desk) -> str: ...

    @cm.method
    def any_other(self, other: cm.Capability | None = None) -> str: ...

    @cm.method
    def again(self) -> Desk: ...

    @cm.method
    def signal(self, signal: cm.Signal) -> None: ...

    @cm.method
    def count(self, to: int) -> Iterator[Point]: ...

    @cm.method
    def upper(self, lines: Iterator[str]) -> Iterator[str]: ...

    @cm.method
    def total(self, numbers: Iterator[int]) -> int: ...

    @cm.method
    def never(self, began: io.BufferedWriter) -> Iterator[int]: ...

    @cm.method
    def escapes(self) -> str: ...


class DeskServer(Desk):
    """Serves it."""

    def __init__(self):
        self.lines = []
        self.never_ends = threading.Event()

    def kept(self):
        return self.lines[-1]

    def add(self, line, times=1, *, when=None):
        if line == "declared":
            raise KeyError(line)
        if line == "undeclared":
            raise RuntimeError("two\nlines, \x1b[31mred")
        self.lines += [line] * times
        return len(self.lines) if when is None else when.year

    def nothing(self):
        pass

    def echo(self, value):
        return value

    def text_or(self, value, other=5):
        return [value, other]

    def digest(self, file, /, salt=b""):
        return salt + file.read()

    def save(self, file, text):
        return file.write(text.encode())

    def size(self, data):
        return data.size

    def point(self, point, colour=Colour.RED):
        return Point(point.x + 1, point.y, point.raw + colour.value.encode())

    def files(self, files, more=None):
        texts = [os.read(file.fileno(), 100).decode() for file in files]
        return texts + ([more.name, more.file.read().decode()] if more is not None and more.file is not None else [])

    def keyed(self, by_number):
        return {number + 1: value for number, value in by_number.items()}

    def post(self, what):
        return what.text.decode() if isinstance(what, Letter) else os.read(what.file.fileno(), 100).decode()

    def tree(self, node):
        return node

    def opened(self):
        return _file()

    def space(self):
        return cm.Dataspace.from_buffer(b"of a space")

    def attached(self):
        return Attached("one", _file())

    def family(self, end):
        return end.family.name

    def other(self, other):
        return other.kept()

    def any_other(self, other=None):
        return other.label if other is not None else "none"

    def again(self):
        return DeskServer()

    def signal(self, signal):
        signal.send()

    def count(self, to):
        for x in range(to):
            yield Point(x)

    def upper(self, lines):
        for line in lines:
            yield line.upper()

    def total(self, numbers):
        return sum(numbers)

    def never(self, began):
        """Says that it has begun, and gives no item."""
        began.write(b"began\n")
        began.flush()
        self.never_ends.wait(60)
        yield 1

    def escapes(self):
        return "\x1b[31m \x9b5m \u202e \u2066 end"


def _file():
    file = open(os.memfd_create("desk", os.MFD_CLOEXEC), "r+b")
    file.write(b"of a file")
    file.seek(0)
    return file


class AwaitedDesk(cm.Interface):
    """The same, awaited."""

    add = cm.awaitable(Desk.add)

    @cm.method
    async def double(self, value: int) -> int:
        """Twice as much."""

    @cm.method
    async def digest(self, file: io.BufferedReader) -> bytes: ...

    @cm.method
    def upper(self, lines: AsyncIterator[str]) -> AsyncIterator[str]: ...


class AwaitedDeskServer(AwaitedDesk):
    """Serves it."""

    async def add(self, line, times=1, *, when=None):
        raise KeyError(line)

    async def double(self, value):
        return 2 * value

    async def digest(self, file):
        return file.read()

    async def upper(self, lines):
        async for line in lines:
            yield line.upper()


async def _serve_awaited(path):
    import anyio

    from capmarshal import aio

    async with aio.Entrypoint("desk") as entrypoint:
        entrypoint.listen(path, AwaitedDeskServer())
        print("listens", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


def main(kind, path):
    if kind == "awaitable":
        import anyio

        anyio.run(_serve_awaited, path)
        return
    with cm.Entrypoint("desk") as entrypoint:
        entrypoint.listen(path, DeskServer())
        print("listens", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
