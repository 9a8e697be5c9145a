"""The server of the benchmarks: every kind of work that a client asks for, and how the client gets at it."""

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

import capmarshal as cm
from bench import contenders, places, processes, usage

# Whoever hands over more than this by value needs the memory several times: what goes beyond is for a Dataspace.
INLINE_MAX = 256 << 20
DESCRIPTORS_MAX = 4096
B = TypeVar("B", bound=contenders.ByHand)

# Of the record around the bytes: there is nothing else in it.
_AROUND = 4096


def _serve_by_hand(name: str, far: socket.socket) -> None:
    with far, contextlib.suppress(EOFError):
        contenders.BY_NAME[name].serve(far)


class Works(cm.Interface):
    """What is called; each method does no more than it says."""

    @cm.method
    def run_on(self, cpu: int) -> None:
        """Has the server's process run on one core from here on."""

    @cm.method
    def settle(self) -> None:
        """Returns when everything that arrived in earlier calls is closed."""

    @cm.method
    def mark(self) -> None:
        """Has callgrind begin a new count of the server's process."""

    @cm.method
    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        """Has a thread of the server's process serve something without capmarshal: a class of :mod:`contenders`."""

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
        """What arrived: see :class:`contenders.Seen`."""

    @cm.method
    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        """What arrived; reads the last byte."""

    @cm.method
    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]:
        """What arrived."""

    @cm.method
    def share_password(self, password: bytes) -> None:
        """Takes what the client's authkey is: see :func:`contenders.share_password`."""

    @cm.method
    def take(self, data: bytes, files: list[cm.Descriptor]) -> None:
        """Takes all of it."""

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
    def open_files(self) -> int:
        """How many descriptors the server's process has open."""

    @cm.method
    def fill_up(self) -> int:
        """Has what is made from here on need memory of its own; what :meth:`resident` is then."""

    @cm.method
    def resident(self) -> int:
        """Bytes that the server's process has to itself."""


class Thing(cm.Interface):
    """What capabilities are of that nobody calls; it has no attributes."""


class _WorksServer(Works):
    def __init__(self, entrypoint: cm.Entrypoint) -> None:
        self._entrypoint = entrypoint
        self._objects: list[Thing] = []
        self._kept: set[cm.Capability] = set()
        self._full: list[bytes] = []

    def run_on(self, cpu: int) -> None:
        places.run_on(cpu)

    def settle(self) -> None:
        # Here, so that a version without this module can be served: bench.neighbours measures those too.
        from capmarshal._descriptors import reaper

        if not reaper.wait(processes.PATIENCE):
            raise TimeoutError("the server does not come to closing what it got")

    def mark(self) -> None:
        usage.mark()

    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        threading.Thread(target=_serve_by_hand, args=(name, cm.keep(far)), name=name, daemon=True).start()

    def add(self, a: int, b: int) -> int:
        return a + b

    def describe(self, file: io.BufferedReader) -> str:  # noqa: ARG002 - that it arrived as such is the work
        return contenders.TEXT

    def inode(self, file: cm.Descriptor) -> int:
        return os.fstat(file.fileno()).st_ino

    def swap(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]:
        return files

    def take_bytes(self, data: bytes) -> tuple[int, int]:
        return contenders.look_at_bytes(data)

    def take_dataspace(self, data: cm.Dataspace) -> tuple[int, int]:
        return contenders.look_at_bytes(data.view())

    def take_descriptors(self, descriptors: list[cm.Descriptor]) -> tuple[int, int]:
        return contenders.look_at_descriptors([descriptor.fileno() for descriptor in descriptors])

    def share_password(self, password: bytes) -> None:
        contenders.share_password(password)

    def take(self, data: bytes, files: list[cm.Descriptor]) -> None:
        pass

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
        for _ in range(count):
            made = Thing()
            self._entrypoint.manage(made)
            self._objects.append(made)

    def hand_out(self, first: int, count: int) -> list[cm.Capability]:
        return [cm.capability(made) for made in self._objects[first : first + count]]

    def open_files(self) -> int:
        return usage.open_files()

    def fill_up(self) -> int:
        self._full = usage.fill_up()
        return usage.resident()

    def resident(self) -> int:
        return usage.resident()


def place(works: Works, cores: places.Cores) -> None:
    """Where the client, this process, and the server run from here on."""
    works.run_on(cores.server)
    places.run_on(cores.client)


@contextlib.contextmanager
def by_hand(works: Works, contender: type[B]) -> Iterator[B]:
    """The client's half of a contender, as long as the block runs; a thread of the server's process runs the other."""
    near, far = socket.socketpair(socket.AF_UNIX, contender.KIND)
    with far:
        works.serve_by_hand(contender.__name__, far)
    with contextlib.closing(contender(near)) as made:
        yield made


def works_of(entrypoint: cm.Entrypoint) -> Works:
    """What is called, for this entrypoint to serve."""
    return _WorksServer(entrypoint)


if __name__ == "__main__":
    entrypoint = cm.Entrypoint("works", max_bytes=INLINE_MAX + _AROUND, max_descriptors=DESCRIPTORS_MAX)
    processes.serve(entrypoint, works_of(entrypoint))
