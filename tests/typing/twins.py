"""Interfaces of both colours, as mypy and pyright see them.  Never run: test_typing.py has both check it.

Where a line is wrong on purpose, it ignores the one error that it must make; an ignore that is not needed is an error.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar, assert_type

import capmarshal as cm

T = TypeVar("T")


class Full(Exception):
    pass


class Host(cm.Interface):
    @cm.method
    @cm.raises(Full)
    def read(self, path: str, start: int = 0, *, fold: bool = False) -> bytes: ...

    @cm.method
    def log(self, line: str, /) -> None: ...


class AsyncHost(cm.Interface):
    read = cm.awaitable(Host.read)
    log = cm.awaitable(Host.log)

    @cm.method
    async def other(self) -> AsyncHost: ...


class HostAgain(cm.Interface):
    read = cm.blocking(AsyncHost.read)
    other = cm.blocking(AsyncHost.other)


class Box(cm.Interface, Generic[T]):
    @cm.method
    def swap(self, value: T) -> T: ...


class IntBox(Box[int]): ...


class AsyncIntBox(cm.Interface):
    swap = cm.awaitable(IntBox.swap)


cm.blocking(Host.read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cm.awaitable(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cm.awaitable()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cm.blocking(method=AsyncHost.read)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def callers(capability: cm.Capability) -> None:
    host = capability.cast(AsyncHost)
    assert_type(host, AsyncHost)
    assert_type(await host.read("x"), bytes)
    assert_type(await host.read("x", 1, fold=True), bytes)
    assert_type(await host.read(path="x", start=1), bytes)
    pending: Coroutine[Any, Any, bytes] = host.read("x")
    assert_type(await pending, bytes)
    assert_type(await (await host.other()).read("x"), bytes)
    assert_type(await capability.cast(AsyncHost, timeout=2.0).log("x"), None)
    assert_type(await capability.cast(AsyncIntBox).swap(1), int)


async def wrong_arguments(host: AsyncHost) -> None:
    await host.read(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await host.read()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await host.read("x", 1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await host.read("x", folded=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await host.log(line="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def forgotten_await(host: AsyncHost) -> bytes:
    host.read("x")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    host.other()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    len(host.read("x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return host.read("x")  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


async def of_the_wrong_colour(host: Host, again: HostAgain) -> None:
    assert_type(host.read("x", fold=True), bytes)
    assert_type(again.read("x", fold=True), bytes)
    assert_type(again.other(), AsyncHost)
    await host.read("x")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await again.read("x")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await callers_of(host)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def callers_of(host: AsyncHost) -> None:
    await host.log("x")


class Server(AsyncHost):
    async def read(self, path: str, start: int = 0, *, fold: bool = False) -> bytes:
        return path.encode()

    async def log(self, line: str, /) -> None: ...

    async def other(self) -> AsyncHost:
        return self


class Blocking(Server):
    def other(self) -> AsyncHost:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return self


class Forgetful(AsyncHost):
    async def read(self, path: str, start: int = 0, *, fold: bool = False) -> bytes:
        return path.encode()


def servers() -> None:
    assert_type(Server(), Server)
    # Of what is derived, type checkers know no more than that it is there.
    Forgetful()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
