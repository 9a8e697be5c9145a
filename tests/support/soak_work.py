"""What a soak's servers serve, in both colours: one method for each kind of thing that travels."""

from __future__ import annotations

import io
import os
import time
from collections import deque

import anyio

import capmarshal as cm

# Objects that are there from the beginning, and those made by calls of which a server keeps the last.
CHILDREN, MADE_MAX = 16, 256


class Child(cm.Interface):
    """What capabilities in arguments and results stand for."""

    @cm.method
    def add(self, number: int) -> int: ...


class AwaitedChild(cm.Interface):
    add = cm.awaitable(Child.add)


class Work(cm.Interface):
    @cm.method
    def text(self, number: int, text: str) -> str: ...

    @cm.method
    def reverse(self, file: io.BufferedReader) -> cm.Descriptor: ...

    @cm.method
    def ask(self, whom: cm.Capability, number: int) -> int: ...

    @cm.method
    def child(self, number: int) -> cm.Capability: ...

    @cm.method
    def make(self, number: int) -> cm.Capability: ...

    @cm.method
    def blob(self, data: bytes) -> bytes: ...

    @cm.method
    @cm.raises(LookupError)
    def fail(self, number: int, declared: bool) -> None: ...

    @cm.method
    def slow(self, number: int, seconds: float) -> int: ...


class AwaitedWork(cm.Interface):
    text = cm.awaitable(Work.text)
    reverse = cm.awaitable(Work.reverse)
    ask = cm.awaitable(Work.ask)
    child = cm.awaitable(Work.child)
    make = cm.awaitable(Work.make)
    blob = cm.awaitable(Work.blob)
    fail = cm.awaitable(Work.fail)
    slow = cm.awaitable(Work.slow)


def file_of(content):
    """A new file that has this in it, read from its beginning."""
    file = cm.Descriptor(os.memfd_create("soak", os.MFD_CLOEXEC))
    os.write(file.fileno(), content)
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return file


def fail(number, declared):
    raise LookupError(f"no {number}") if declared else RuntimeError(f"bad {number}")


class ChildServer(Child):
    def __init__(self, own):
        self._own = own

    def add(self, number):
        return self._own + number


class AwaitedChildServer(AwaitedChild):
    def __init__(self, own):
        self._own = own

    async def add(self, number):
        return self._own + number


class Worker(Work):
    """Serves it in a thread."""

    def __init__(self, entrypoint):
        self._entrypoint, self._made = entrypoint, deque()
        self._children = [entrypoint.manage(ChildServer(number)) for number in range(CHILDREN)]

    def text(self, number, text):
        return f"{text} {2 * number}"

    def reverse(self, file):
        return file_of(file.read()[::-1])

    def ask(self, whom, number):
        return whom.cast(Child).add(number)

    def child(self, number):
        return self._children[number % CHILDREN]

    def make(self, number):
        self._made.append(ChildServer(number))
        if len(self._made) > MADE_MAX:
            self._entrypoint.dissolve(self._made.popleft())
        return self._entrypoint.manage(self._made[-1])

    def blob(self, data):
        return data

    def fail(self, number, declared):
        fail(number, declared)

    def slow(self, number, seconds):
        time.sleep(seconds)
        return number


class AwaitedWorker(AwaitedWork):
    """Serves it in an event loop."""

    def __init__(self, entrypoint):
        self._entrypoint, self._made = entrypoint, deque()
        self._children = [entrypoint.manage(AwaitedChildServer(number)) for number in range(CHILDREN)]

    async def text(self, number, text):
        return f"{text} {2 * number}"

    async def reverse(self, file):
        await anyio.lowlevel.checkpoint()
        return file_of(file.read()[::-1])

    async def ask(self, whom, number):
        return await whom.cast(AwaitedChild).add(number)

    async def child(self, number):
        return self._children[number % CHILDREN]

    async def make(self, number):
        made = AwaitedChildServer(number)
        self._made.append(made)
        capability = self._entrypoint.manage(made)
        if len(self._made) > MADE_MAX:
            await self._entrypoint.dissolve(self._made.popleft())
        return capability

    async def blob(self, data):
        await anyio.lowlevel.checkpoint()
        return data

    async def fail(self, number, declared):
        fail(number, declared)

    async def slow(self, number, seconds):
        await anyio.sleep(seconds)
        return number
