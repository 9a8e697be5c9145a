"""The servers of capmarshal, each a process of its own, and how a client gets at what they serve."""

import contextlib
import io
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

import capmarshal as cm
from bench import contenders, usage
from bench.contenders import look_at_bytes, look_at_descriptors
from bench.processes import PATIENCE, Cores, Process, await_end, running

# Whoever hands over more than this by value needs the memory several times: what goes beyond is for a Dataspace.
INLINE_MAX = 256 << 20
DESCRIPTORS_MAX = 4096
# Of the record around the bytes: there is nothing else in it.
_AROUND = 4096
# The default of most machines; and the ordinary users that root becomes.
_TABLE = 1024
_FIRST_USER, _USERS = 20_000, 20_000
B = TypeVar("B", bound=contenders.ByHand)


class Works(cm.Interface):
    """What is called; each method does no more than it says.  What arrived is how much, and what the last of it is."""

    @cm.method
    def add(self, a: int, b: int) -> int: ...

    @cm.method
    def describe(self, file: io.BufferedReader) -> str:
        """64 characters, whatever the file."""

    @cm.method
    def inode(self, file: cm.Descriptor) -> int: ...

    @cm.method
    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]: ...

    @cm.method
    def take_bytes(self, data: bytes) -> tuple[int, int]: ...

    @cm.method
    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        """What arrived; reads the last byte."""

    @cm.method
    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]: ...

    @cm.method
    def make(self, size: int, count: int) -> tuple[bytes, list[cm.Descriptor]]: ...

    @cm.method
    def nap(self, seconds: float) -> None:
        """Takes its time; raises ValueError for a negative one."""

    @cm.method
    def keep(self, thing: cm.Capability) -> int:
        """Keeps it; how many different ones it has then."""

    @cm.method
    def drop(self) -> None: ...

    @cm.method
    def manage(self, count: int) -> None:
        """Manages so many objects more."""

    @cm.method
    def hand_out(self, first: int, count: int) -> list[cm.Capability]:
        """Capabilities of some of these objects."""

    @cm.method
    def count(self, upto: int) -> Iterator[int]: ...

    @cm.method
    def use(self, what: str) -> int:
        """What the server's process uses: a function of :mod:`bench.usage`."""

    @cm.method
    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        """Has a thread of the server's process serve something without capmarshal: a class of :mod:`contenders`."""


class AwaitedWorks(cm.Interface):
    """What of it is awaited."""

    add = cm.awaitable(Works.add)
    count = cm.awaitable_stream(Works.count)


class Thing(cm.Interface):
    """What capabilities are of that nobody calls; it has no attributes."""


class WorksServer(Works):
    """What serves it, and hands out objects that are managed already, or that it is told to manage."""

    def __init__(self, entrypoint: cm.Entrypoint, *objects: cm.Interface) -> None:
        self._entrypoint = entrypoint
        self._objects = [*objects]
        self._kept: set[cm.Capability] = set()

    def add(self, a: int, b: int) -> int:
        return a + b

    def describe(self, file: io.BufferedReader) -> str:  # noqa: ARG002 - that it arrived as such is the work
        return contenders.TEXT

    def inode(self, file: cm.Descriptor) -> int:
        return os.fstat(file.fileno()).st_ino

    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]:
        return files

    def take_bytes(self, data: bytes) -> tuple[int, int]:
        return look_at_bytes(data)

    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        return look_at_bytes(data.view())

    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]:
        return look_at_descriptors([descriptor.fileno() for descriptor in descriptors])

    def make(self, size: int, count: int) -> tuple[bytes, list[cm.Descriptor]]:
        return bytes(size), [cm.Descriptor(os.memfd_create("made", os.MFD_CLOEXEC)) for _ in range(count)]

    def nap(self, seconds: float) -> None:
        time.sleep(seconds)

    def keep(self, thing: cm.Capability) -> int:
        self._kept.add(thing)
        return len(self._kept)

    def drop(self) -> None:
        self._kept.clear()

    def manage(self, count: int) -> None:
        made = [Thing() for _ in range(count)]
        for thing in made:
            self._entrypoint.manage(thing)
        self._objects += made

    def hand_out(self, first: int, count: int) -> list[cm.Capability]:
        return [cm.capability(made) for made in self._objects[first : first + count]]

    def count(self, upto: int) -> Iterator[int]:
        yield from range(upto)

    def use(self, what: str) -> int:
        return int(getattr(usage, what)())

    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        threading.Thread(target=contenders.serve, args=(name, cm.keep(far)), name=name, daemon=True).start()


class _AwaitedWorks(AwaitedWorks):
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number


def blocking() -> None:
    """Serves in a thread, and takes as much as any benchmark hands over."""
    _serve(cm.Entrypoint("works", max_bytes=INLINE_MAX + _AROUND, max_descriptors=DESCRIPTORS_MAX))


def shared() -> None:
    """The one that :mod:`bench.neighbours` has: an ordinary user's, with a small table."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_TABLE, hard), hard))
    logging.basicConfig(filename=os.devnull)
    drop_root(0)
    _serve(cm.Entrypoint("works"))


def _serve(entrypoint: cm.Entrypoint) -> None:
    with entrypoint:
        cm.send_capability(sys.stdin, entrypoint.manage(WorksServer(entrypoint)))
        with contextlib.suppress(KeyboardInterrupt):
            await_end()
        # Not left: how long that takes with what others left there is not what is measured.
        os._exit(0)


async def awaited() -> None:
    """Serves in an event loop."""
    await hand_over(_AwaitedWorks())


class _Passing(cm.Forwarder):
    async def forward(self, call: cm.UntypedCall) -> cm.UntypedResult:
        from capmarshal import aio

        return await aio.forward(call, to=cm.parent())


async def forwarder() -> None:
    """Passes calls on to what it inherits, which is the least that a bridge does."""
    await hand_over(_Passing())


async def hand_over(served: cm.Interface | cm.Forwarder) -> None:
    """Serves this in this event loop until the benchmark ends it."""
    from bench import loops
    from capmarshal import aio

    async with aio.Entrypoint("works") as entrypoint:
        cm.send_capability(sys.stdin, entrypoint.manage(served))
        await loops.await_end()


@contextlib.contextmanager
def handed_over(
    role: Callable[..., object],
    *arguments: object,
    cores: Cores | None = None,
    under: Sequence[str] = (),
    parent: cm.Capability | None = None,
) -> Iterator[tuple[cm.Capability, Process]]:
    """What a process hands over, and the process, see :func:`running`; its standard input is a socket, for that."""
    near, far = socket.socketpair()
    with contextlib.ExitStack() as stack:
        with far:
            started = running(role, *arguments, cores=cores, stdin=far, under=under, parent=parent)
            process = stack.enter_context(started)
        # The process ends with it.
        stack.enter_context(near)
        yield cm.receive_capability(near, timeout=PATIENCE), process


@contextlib.contextmanager
def served(
    cores: Cores | None = None,
    role: Callable[..., object] = blocking,
    *arguments: object,
    under: Sequence[str] = (),
) -> Iterator[Works]:
    """What a server process serves as long as the block runs."""
    with handed_over(role, *arguments, cores=cores, under=under) as (capability, _):
        yield capability.cast(Works)


@contextlib.contextmanager
def by_hand(works: Works, contender: type[B]) -> Iterator[B]:
    """The client's half of a contender, as long as the block runs; a thread of the server's process runs the other."""
    near, far = socket.socketpair(socket.AF_UNIX, contender.KIND)
    with far:
        works.serve_by_hand(contender.__name__, far)
    with contextlib.closing(contender(near)) as made:
        yield made


def drop_root(which: int) -> None:
    """Becomes an ordinary user, one for each ``which`` and process; nothing where this process isn't root's.

    Descriptors in flight are counted by user, over the whole machine, and root is free to have any number.
    """
    if os.getuid() == 0:
        user = _FIRST_USER + which * _USERS + os.getpid() % _USERS
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
