"""The server of the benchmarks: ``python -m bench.server``, a process of its own, and how a client gets at it.

``python -m bench.server shared`` is the one that :mod:`bench.neighbours` has: an ordinary user's, with a small table.
"""

import contextlib
import io
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import capmarshal as cm
from bench import contenders, processes, usage
from bench.contenders import look_at_bytes, look_at_descriptors
from bench.processes import Cores

# Whoever hands over more than this by value needs the memory several times: what goes beyond is for a Dataspace.
INLINE_MAX = 256 << 20
DESCRIPTORS_MAX = 4096
B = TypeVar("B", bound=contenders.ByHand)

# Of the record around the bytes: there is nothing else in it.
_AROUND = 4096
# The default of most machines; and the ordinary users that root becomes.
_TABLE = 1024
_FIRST_USER, _USERS = 20_000, 20_000


class Works(cm.Interface):
    """What is called; each method does no more than it says.  What arrived is how much, and what the last of it is."""

    @cm.method
    def add(self, a: int, b: int) -> int:
        """The sum."""

    @cm.method
    def describe(self, file: io.BufferedReader) -> str:
        """64 characters, whatever the file."""

    @cm.method
    def inode(self, file: cm.Descriptor) -> int:
        """That of a file."""

    @cm.method
    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]:
        """The same files."""

    @cm.method
    def take_bytes(self, data: bytes) -> tuple[int, int]:
        """What arrived."""

    @cm.method
    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        """What arrived; reads the last byte."""

    @cm.method
    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]:
        """What arrived."""

    @cm.method
    def make(self, size: int, count: int) -> tuple[bytes, list[cm.Descriptor]]:
        """So many bytes, and so many memfds."""

    @cm.method
    def nap(self, seconds: float) -> None:
        """Takes its time; raises ValueError for a negative one."""

    @cm.method
    def keep(self, thing: cm.Capability) -> int:
        """Keeps it; how many different ones it has then."""

    @cm.method
    def drop(self) -> None:
        """Drops all that it keeps."""

    @cm.method
    def manage(self, count: int) -> None:
        """Manages so many objects more."""

    @cm.method
    def hand_out(self, first: int, count: int) -> list[cm.Capability]:
        """Capabilities of some of these objects."""

    @cm.method
    def use(self, what: str) -> int:
        """What the server's process uses: a function of :mod:`usage`."""

    @cm.method
    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        """Has a thread of the server's process serve something without capmarshal: a class of :mod:`contenders`."""


class Thing(cm.Interface):
    """What capabilities are of that nobody calls; it has no attributes."""


class _Works(Works):
    def __init__(self, entrypoint: cm.Entrypoint) -> None:
        self._entrypoint = entrypoint
        self._objects: list[Thing] = []
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

    def use(self, what: str) -> int:
        result: int = getattr(usage, what)()
        return result

    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        threading.Thread(target=contenders.serve, args=(name, cm.keep(far)), name=name, daemon=True).start()


@contextlib.contextmanager
def handed_over(
    cores: Cores | None = None,
    *arguments: str,
    module: str = "server",
    under: Sequence[str] = (),
    parent: cm.Capability | None = None,
) -> Iterator[tuple[cm.Capability, processes.Process]]:
    """What a process hands over, and the process; it, and this one, run on these cores as long as the block does.

    It runs a module of this package, see :func:`processes.running`; its standard input is a socket, by which it hands
    its capability over.
    """
    near, far = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.callback(processes.run_on)
        with far:
            processes.run_on(*([] if cores is None else [cores.server]))
            started = processes.running(module, *arguments, stdin=far, under=under, parent=parent)
            process = stack.enter_context(started)
        processes.run_on(*([] if cores is None else [cores.client]))
        # The process ends with it.
        stack.enter_context(near)
        yield cm.receive_capability(near, timeout=processes.PATIENCE), process


@contextlib.contextmanager
def served(
    cores: Cores | None = None, *arguments: str, module: str = "server", under: Sequence[str] = ()
) -> Iterator[Works]:
    """What a server process serves; it, and this process, run on these cores as long as the block does."""
    with handed_over(cores, *arguments, module=module, under=under) as (capability, _):
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


def _main(*, shared: bool) -> None:
    if shared:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_TABLE, hard), hard))
        logging.basicConfig(filename=os.devnull)
        drop_root(0)
        entrypoint = cm.Entrypoint("works")
    else:
        entrypoint = cm.Entrypoint("works", max_bytes=INLINE_MAX + _AROUND, max_descriptors=DESCRIPTORS_MAX)
    with entrypoint:
        cm.send_capability(sys.stdin, entrypoint.manage(_Works(entrypoint)))
        processes.await_end()
        if shared:
            # Not left: how long that takes with what the neighbour left there is not what is measured.
            os._exit(0)


if __name__ == "__main__":
    _main(shared="shared" in sys.argv)
