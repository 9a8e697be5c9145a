"""Servers for the tests of ``capmarshal.testing``: other processes import this, and nothing of the tests' own."""

from __future__ import annotations

import io
import os

import anyio

import capmarshal as cm


class Files(cm.Interface):
    @cm.method
    def size(self, file: io.BufferedReader) -> int: ...

    @cm.method
    def count(self, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def double(self, value: int) -> int: ...

    @cm.method
    def pid(self) -> int: ...

    @cm.method
    def hold(self, file: cm.Descriptor) -> None: ...


class FilesServer(Files):
    def __init__(self, factor=2, broken=""):
        if broken:
            raise ValueError(broken)
        self.factor = factor
        self.held = []

    def size(self, file):
        return len(file.read())

    def count(self, files):
        return len(files)

    def double(self, value):
        return self.factor * value

    def pid(self):
        return os.getpid()

    def hold(self, file):
        self.held.append(cm.keep(file))


class Counter(cm.Interface):
    @cm.method
    async def add(self, value: int) -> int: ...


class CounterServer(Counter):
    def __init__(self):
        self.total = 0

    async def add(self, value):
        await anyio.sleep(0)
        self.total += value
        return self.total


class Plain:
    """No server."""


class Other(cm.Interface):
    @cm.method
    def other(self) -> int: ...


class BothServer(FilesServer, Other):
    def other(self):
        return 3


def make_files(factor):
    return FilesServer(factor)


class MoreFiles(Files):
    @cm.method
    def more(self) -> int: ...


class MoreFilesServer(MoreFiles, FilesServer):
    def more(self):
        return 4


def exits():
    os._exit(3)
