"""Proxies whose calls are awaited: what they send, give and raise, as blocking ones do, on each loop."""

import contextlib
import contextvars
import inspect
import io
import logging
import math
import os
import re
import subprocess
import sys
import typing

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from capmarshal._capabilities.capability import open_door_of
from capmarshal._kernel.deadline import await_with_proxy_timeout
from loops import each_loop, in_thread, run
from patience import PATIENCE, until


class Full(Exception):
    pass


class Shelf(cm.Interface):
    @cm.method
    def name(self) -> str: ...


class AsyncShelf(cm.Interface):
    name = cm.awaitable(Shelf.name)


class Shop(cm.Interface):
    @cm.method
    @cm.raises(Full)
    def price(self, of: str, count: int = 1, *, cut: int = 0) -> int:
        """What it costs."""

    @cm.method
    def size(self, file: io.BufferedReader) -> int: ...

    @cm.method
    def first(self, files: list[cm.Descriptor]) -> cm.Descriptor: ...

    @cm.method
    def shelf(self, like: Shelf | None = None) -> Shelf: ...

    @cm.method
    def names(self, shelves: dict[str, Shelf]) -> list[str]: ...

    @cm.method
    def remaining(self) -> float: ...

    @cm.method
    def anything(self, value: typing.Any) -> typing.Any: ...


class AsyncShop(cm.Interface):
    price = cm.awaitable(Shop.price)
    size = cm.awaitable(Shop.size)
    first = cm.awaitable(Shop.first)
    names = cm.awaitable(Shop.names)
    remaining = cm.awaitable(Shop.remaining)
    anything = cm.awaitable(Shop.anything)

    @cm.method
    async def shelf(self, like: AsyncShelf | None = None) -> AsyncShelf: ...


class Old(cm.Interface):
    @cm.method
    def gone(self) -> None: ...


class AsyncOld(cm.Interface):
    gone = cm.awaitable(Old.gone)


class ShelfServer(Shelf):
    def name(self):
        return "own"


class ShopServer(Shop):
    def __init__(self, entrypoint):
        self.calls = 0
        self.own = ShelfServer()
        entrypoint.manage(self.own)

    def price(self, of, count=1, *, cut=0):
        self.calls += 1
        if of == "full":
            raise Full("no room")
        if of == "broken":
            raise LookupError(of)
        return len(of) * count - cut

    def size(self, file):
        return len(file.read())

    def first(self, files):
        return files[0]

    def shelf(self, like=None):
        return like or self.own

    def names(self, shelves):
        return [shelf.name() for shelf in shelves.values()]

    def remaining(self):
        return cm.remaining()

    def anything(self, value):
        return value


@pytest.fixture(autouse=True)
def nothing_logged(caplog):
    """What the journal writes of an error keeps the frames that raised it, and so the entrypoint, during the test."""
    caplog.set_level(logging.CRITICAL, "capmarshal")


@contextlib.contextmanager
def shop():
    """(server, capability), of an entrypoint that is served by a thread."""
    with cm.Entrypoint("shop") as entrypoint:
        server = ShopServer(entrypoint)
        yield server, entrypoint.manage(server)


@each_loop
def test_data_there_and_back(loop):
    """With defaults, keywords, and what is given by name."""

    async def calls(capability):
        proxy = capability.cast(AsyncShop)
        assert await proxy.price("spam") == 4
        assert await proxy.price("spam", 2) == 8
        assert await proxy.price(count=2, of="spam", cut=3) == 5

    with shop() as (_, capability):
        run(loop, calls, capability)


@each_loop
def test_files_there_and_back(loop, tmp_path):
    """A file is lent, and what comes back is the caller's."""
    (tmp_path / "file").write_bytes(b"spam")

    async def calls(capability):
        proxy = capability.cast(AsyncShop)
        with (tmp_path / "file").open("rb") as file:
            assert await proxy.size(file) == 4
            with cm.Descriptor.dup_of(file) as lent, await proxy.first([lent]) as came:
                assert os.path.sameopenfile(came.fileno(), file.fileno())

    with shop() as (_, capability):
        run(loop, calls, capability)


@each_loop
def test_capabilities_there_and_back(loop):
    """As an interface of either colour, whoever serves it: the capability is the same."""

    async def calls(capability, given):
        proxy = capability.cast(AsyncShop)
        shelf = await proxy.shelf()
        assert isinstance(shelf, AsyncShelf)
        assert await shelf.name() == "own"
        assert cm.capability(await proxy.shelf(given.cast(AsyncShelf))) is given
        assert await proxy.names({"a": given.cast(Shelf), "b": given.cast(Shelf)}) == ["own", "own"]

    with shop() as (_, capability), cm.Entrypoint("other") as other:
        run(loop, calls, capability, other.manage(ShelfServer()))


@each_loop
def test_many_at_once(loop):
    """Each has its own answer."""

    async def calls(capability):
        proxy, answers = capability.cast(AsyncShop), {}

        async def call(count):
            answers[count] = await proxy.price("x", count)

        async with anyio.create_task_group() as group:
            for count in range(20):
                group.start_soon(call, count)
        assert answers == {count: count for count in range(20)}

    with shop() as (_, capability):
        run(loop, calls, capability)


def test_what_a_proxy_shows_is_what_is_declared():
    """Coroutine functions, with the parameters, the docstring and the name of the declaration."""
    with shop() as (_, capability):
        proxy = capability.cast(AsyncShop)
        assert isinstance(proxy, AsyncShop)
        for name in ("price", "shelf"):
            assert inspect.iscoroutinefunction(getattr(proxy, name))
            assert inspect.signature(getattr(AsyncShop, name)) == inspect.signature(getattr(type(proxy), name))
        assert proxy.price.__doc__ == "What it costs."
        assert proxy.price.__qualname__ == "AsyncShop.price"
        assert proxy == capability.cast(Shop)


def test_a_forgotten_await_is_pythons_own_warning_and_sends_nothing():
    """Nothing was looked at, either: the argument is not what is due."""
    with shop() as (server, capability):
        proxy = capability.cast(AsyncShop)
        with pytest.warns(RuntimeWarning, match=r"coroutine 'AsyncShop\.price' was never awaited"):
            proxy.price(b"spam")
        assert not _channels(capability)
        assert server.calls == 0


def _channels(capability):
    """Those that this process has to its entrypoint and that no call uses."""
    return open_door_of(capability).idle


# Of which object, which method, and with what.
MISTAKES = {
    "a wrong type": ("price", (b"spam",), {}),
    "a wrong type by name": ("price", ("spam",), {"cut": "all"}),
    "a wrong type in a table": ("names", ({"a": 5},), {}),
    "no file": ("size", (5,), {}),
    "what nobody can send": ("anything", (object(),), {}),
    "an error of the server's": ("first", ([],), {}),
    "a declared error": ("price", ("full",), {}),
    "an error that is not declared": ("price", ("broken",), {}),
    "an unknown method": ("gone", (), {}),
}


@each_loop
@pytest.mark.parametrize("mistake", MISTAKES)
def test_errors_are_those_of_blocking_proxies(loop, mistake):
    """Type, words and notes."""
    name, arguments, by_name = MISTAKES[mistake]
    with shop() as (_, capability):
        _compare_errors(loop, capability, name, *arguments, **by_name)


@each_loop
def test_errors_of_descriptors_and_of_what_is_gone_are_those_of_blocking_proxies(loop):
    """A descriptor that is not open, a capability that was closed, one that was dissolved, a server that has ended."""
    with shop() as (_, capability), cm.Entrypoint("other") as other:
        _compare_errors(loop, capability, "first", [NotOpen()])
        given = other.manage(ShelfServer())
        closed = given.cast(Shelf)
        given.close()
        _compare_errors(loop, capability, "names", {"a": closed})
        _compare_errors(loop, given, "name", of=(Shelf, AsyncShelf))
        dissolved = ShelfServer()
        gone = other.manage(dissolved)
        other.dissolve(dissolved)
        _compare_errors(loop, gone, "name", of=(Shelf, AsyncShelf))
    # An old channel that has ended is told in other words than a door that is shut.
    until(lambda: capability.gone)
    for idle in open_door_of(capability).idle:
        idle.drop()
    open_door_of(capability).idle.clear()
    _compare_errors(loop, capability, "price", "spam")


class NotOpen:
    """Has a number that is not open."""

    def fileno(self):
        return 1_000_000


def _compare_errors(loop, capability, name, *arguments, of=None, **by_name):
    blocking, awaitable = of or ((Old, AsyncOld) if name == "gone" else (Shop, AsyncShop))

    async def call():
        await getattr(capability.cast(awaitable), name)(*arguments, **by_name)

    told = []
    for makes in (lambda: getattr(capability.cast(blocking), name)(*arguments, **by_name), lambda: run(loop, call)):
        with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is, it is the same
            makes()
        notes = [note.replace("Async", "") for note in getattr(raised.value, "__notes__", ())]
        told.append((type(raised.value), str(raised.value).replace("Async", ""), notes))
    assert told[0] == told[1]


@each_loop
def test_a_proxy_may_have_a_timeout_for_each_of_its_calls(loop):
    """Each has the whole of it, in its own task, and nothing is left in force."""

    async def calls(capability):
        bounded, unbounded = capability.cast(AsyncShop, timeout=PATIENCE / 2), capability.cast(AsyncShop)
        left = {}

        async def call(proxy, name):
            left[name] = await proxy.remaining()

        async with anyio.create_task_group() as group:
            group.start_soon(call, bounded, "one")
            group.start_soon(call, unbounded, "other")
        await call(bounded, "again")
        assert PATIENCE / 4 < left["one"] <= PATIENCE / 2 < left["other"]
        assert PATIENCE / 4 < left["again"] <= PATIENCE / 2
        with cm.timeout(PATIENCE / 4):
            assert 0 < await bounded.remaining() <= PATIENCE / 4
            assert 0 < cm.remaining() <= PATIENCE / 4
        assert cm.remaining() == math.inf

    with shop() as (_, capability):
        run(loop, calls, capability)


@each_loop
def test_a_proxys_timeout_that_passes_says_whose_it_was(loop):
    """As of a blocking proxy; whoever serves it never comes to the call."""
    entrypoint = cm.Entrypoint("unserved")
    capability = entrypoint.manage(ShelfServer())
    told = []

    async def call():
        await capability.cast(AsyncShelf, timeout=0.01).name()

    for makes in (lambda: capability.cast(Shelf, timeout=0.01).name(), lambda: run(loop, call)):
        with pytest.raises(cm.CallTimeout, match=r"the deadline of cast\(timeout=0\.01\)") as raised:
            makes()
        told.append((str(raised.value).replace("Async", "").partition(" in ")[0], raised.value.ran))
    assert told[0] == told[1]
    entrypoint.close()


def test_a_call_that_is_given_up_elsewhere_leaves_the_deadline_there_alone():
    """As a coroutine that is collected is: closed by whoever runs, in whose context its own block never was."""

    async def never():
        await _Suspended()

    call = contextvars.copy_context().run(_begun, await_with_proxy_timeout(100, never))
    with cm.timeout(50):
        call.close()
        assert 49 < cm.remaining() <= 50
    assert cm.remaining() == math.inf


class _Suspended:
    def __await__(self):
        yield


def _begun(coroutine):
    coroutine.send(None)
    return coroutine


CALL = "called AsyncShop.{}, entrypoint 'shop': {} in T; bytes: N out, N in; descriptors: {} out, {} in"


@each_loop
def test_calls_are_logged_as_those_of_blocking_proxies(loop, caplog, tmp_path):
    """What goes and what comes, how it ends, and how long it took; also with a timeout."""
    (tmp_path / "file").write_bytes(b"spam")

    async def calls(capability):
        proxy = capability.cast(AsyncShop, timeout=PATIENCE)
        await proxy.price("spam")
        with (tmp_path / "file").open("rb") as file:
            await proxy.size(file)
            with cm.Descriptor.dup_of(file) as lent, await proxy.first([lent]):
                pass
        with pytest.raises(Full):
            await capability.cast(AsyncShop).price("full")
        with pytest.raises(cm.ArgumentError):
            await proxy.anything(object())

    with caplog.at_level(logging.DEBUG, "capmarshal"), shop() as (_, capability):
        run(loop, calls, capability)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("called")]
    caplog.clear()
    shown = [re.sub(r"\d+ out, \d+ in;", "N out, N in;", re.sub(r"in \d+\.\d{3} ms", "in T", line)) for line in lines]
    assert shown == [
        CALL.format("price", "ok", 0, 0),
        CALL.format("size", "ok", 1, 0),
        CALL.format("first", "ok", 1, 1),
        CALL.format("price", "Full", 0, 0),
        "called AsyncShop.anything, entrypoint 'shop': ArgumentError in T; through no channel",
    ]


class Within(cm.Interface):
    @cm.method
    def call(self, loop: str) -> None: ...


class WithinServer(Within):
    def __init__(self, place):
        self.place = place

    def call(self, loop):
        async def call():
            with pytest.raises(RuntimeError, match=r"calling entrypoint 'own' in an event loop.*cm\.blocking"):
                await self.me.cast(AsyncShop).remaining()
            # What blocks runs in place.
            assert self.me.cast(Shop).remaining() > 0
            with pytest.raises(RuntimeError, match=r"connecting to .* in an event loop of the thread"):
                await aio.connect(self.place)
            with pytest.raises(RuntimeError, match="waiting for entrypoint 'own' to go in an event loop of the thread"):
                await aio.wait_gone(self.me)
            with pytest.raises(cm.CallTimeout):
                await aio.wait_gone(self.me, 0)

        run(loop, call)


@each_loop
def test_what_waits_for_its_own_thread_is_told_at_once(loop, tmp_path):
    """In an event loop that a method of the entrypoint runs, whose turn does not end before that."""
    with cm.Entrypoint("own") as entrypoint:
        server = WithinServer(tmp_path / "s")
        server.me = entrypoint.manage(ShopServer(entrypoint))
        entrypoint.listen(tmp_path / "s", server.me)
        entrypoint.manage(server).cast(Within).call(loop)
        del server.me


class FromThread(Within):
    def call(self, loop):
        anyio.from_thread.run(self.call_back)

    async def call_back(self):
        with (
            cm.timeout(0.05),
            pytest.raises(cm.CallTimeout, match="a method of entrypoint 'own', which takes no other"),
        ):
            await self.me.cast(AsyncShop).remaining()


@each_loop
def test_what_waits_for_the_thread_that_waits_for_its_loop_is_told_when_time_is_up(loop):
    """Before, it might be a task that the method does not wait for."""

    async def main():
        entrypoint, server = cm.Entrypoint("own"), FromThread()
        server.me = entrypoint.manage(ShopServer(entrypoint))
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, entrypoint.serve_forever)
            await in_thread(entrypoint.manage(server).cast(Within).call, loop)
            entrypoint.close()
        del server.me

    run(loop, main)


WITHOUT_ANYIO = """
import sys
sys.modules["anyio"] = None
import capmarshal as cm

class Shelf(cm.Interface):
    @cm.method
    def name(self) -> str: ...

class AsyncShelf(cm.Interface):
    name = cm.awaitable(Shelf.name)

class ShelfServer(Shelf):
    def name(self):
        return "own"

with cm.Entrypoint("shelf") as entrypoint:
    capability = entrypoint.manage(ShelfServer())
    for _ in range(2):
        try:
            capability.cast(AsyncShelf)
        except ImportError as error:
            print(error)
    print(capability.cast(Shelf).name())
"""


def test_without_anyio_the_cast_says_what_to_install():
    """Whoever declares awaitable interfaces, and blocks, needs none of it."""
    command = [sys.executable, "-P", "-W", "error", "-c", WITHOUT_ANYIO]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    words = "AsyncShelf is awaitable, which needs anyio: pip install 'anyio>=4.7'\n"
    assert (ended.stdout, ended.stderr) == (f"{words}{words}own\n", "")
