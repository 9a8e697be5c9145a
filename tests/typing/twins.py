"""Interfaces of both colours, as mypy and pyright see them.  Never run: test_typing.py has both check it.

Where a line is wrong on purpose, it ignores the one error that it must make; an ignore that is not needed is an error.
"""

from __future__ import annotations

import subprocess
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar, assert_type

import anyio.abc

import capmarshal as cm
from capmarshal import aio

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


async def served(server: Server, blocking: HostServer) -> None:
    async with aio.Entrypoint("label", concurrency=10) as entrypoint:
        assert_type(entrypoint, aio.Entrypoint)
        assert_type(entrypoint.manage(server), cm.Capability)
        # Colours of what is managed are checked at run time alone.
        entrypoint.manage(blocking)
        entrypoint.manage(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await entrypoint.dissolve(server)
    with aio.Entrypoint("label"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def children(capability: cm.Capability) -> None:
    async with await aio.spawn(["program"], parent=capability, stdout=subprocess.PIPE) as process:
        assert_type(process, anyio.abc.Process)
        assert_type(await process.wait(), int)
    await aio.spawn("program", parent=capability, descriptor_limit=100, parent_as_stdin=True)
    await aio.spawn(["plugin.py"], parent=capability, confine=cm.Confinement(read=["folder"], memory=1 << 30))
    cm.Confinement(["folder"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await aio.spawn(["program"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await aio.spawn(["program"], parent=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    aio.spawn(["program"], parent=capability)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


async def services(capability: cm.Capability) -> None:
    assert_type(await aio.connect("path"), cm.Capability)
    assert_type(await aio.wait_gone(capability), None)
    aio.wait_gone(capability)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


async def signals(receiver: cm.SignalReceiver, entrypoint: aio.Entrypoint) -> None:
    async def handler() -> None: ...

    assert_type(await aio.wait_signal(receiver, 2.0), int)
    aio.wait_signal(receiver)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    assert_type(entrypoint.on_signal(handler), cm.Signal)


class HostServer(Host):
    def read(self, path: str, start: int = 0, *, fold: bool = False) -> bytes:
        return path.encode()

    def log(self, line: str, /) -> None: ...


def servers() -> None:
    assert_type(Server(), Server)
    # Of what is derived, type checkers know no more than that it is there.
    Forgetful()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
