"""Descriptors of any kind between containers, where nobody may take them out of another process.

Libraries that share a GPU's memory between processes export it as a descriptor (a dma-buf, say), and the other side
needs that descriptor.  What they often do, to send its number and have the other side fetch it by pidfd_getfd(2), takes
the right to trace the exporter, and container runtimes refuse that.  Passing it needs no right but a socket.  So here
is an *exchange*, a service at a path: on a volume that both containers have mounted, whoever may write to the socket
may use it.  Each user has a shelf of his own, where what one process puts another gets::

    exporter                    exchange, at a path             importer
      shelf.put("ring", fd) ----->  keeps a copy  <--------------  fd = shelf.get("ring")

Of the descriptor nothing is asked, so it may be of any kind.  Here an eventfd, a memfd and a pidfd stand for what a GPU
exports: the importer reads the memory, rings the bell, and is told when the exporter has ended.

    python descriptor_exchange.py                 all three, each a process, and says what the importer saw
    python descriptor_exchange.py serve PATH      the exchange, until Ctrl-C
    python descriptor_exchange.py export PATH     puts three descriptors there, and waits for the bell
    python descriptor_exchange.py import PATH     gets them, and says what it saw
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import capmarshal as cm

MOST = 64  # descriptors of one user
PATIENCE = 30.0  # seconds
TEXT = b"what a GPU would have computed"


class Shelf(cm.Interface):
    """Where the processes of one user put descriptors for each other."""

    @cm.method
    def put(self, name: str, what: cm.Descriptor) -> None:
        """Leaves a copy of a descriptor there, in place of what had the name before."""

    @cm.method
    @cm.raises(KeyError)
    def get(self, name: str) -> cm.Descriptor:
        """A copy of what is there; KeyError if there is nothing of that name."""

    @cm.method
    def clear(self) -> None:
        """Takes away all that is there."""


class ShelfServer(Shelf):
    """A shelf of the exchange's."""

    def __init__(self) -> None:
        self._things: dict[str, cm.Descriptor] = {}

    def put(self, name: str, what: cm.Descriptor) -> None:
        """See :meth:`Shelf.put`."""
        if len(self._things) >= MOST and name not in self._things:
            raise ValueError(f"there are {MOST} descriptors on your shelf: clear it")
        before, self._things[name] = self._things.get(name), cm.keep(what)
        if before is not None:
            before.close()

    def get(self, name: str) -> cm.Descriptor:
        """See :meth:`Shelf.get`."""
        return self._things[name].dup()

    def clear(self) -> None:
        """See :meth:`Shelf.clear`."""
        while self._things:
            self._things.popitem()[1].close()


def listen(entrypoint: cm.Entrypoint, path: Path, at_end: contextlib.ExitStack) -> None:
    """Has an entrypoint be the exchange: at a path, where each user gets his own shelf, until the end."""
    shelves: dict[int, cm.Capability] = {}

    def shelf_of(caller: cm.Caller) -> cm.Capability:
        if caller.uid not in shelves:
            shelf = ShelfServer()
            at_end.callback(shelf.clear)
            shelves[caller.uid] = entrypoint.manage(shelf)
        return shelves[caller.uid]

    entrypoint.listen(path, for_client=shelf_of)


def serve(path: Path) -> None:
    """The exchange, until Ctrl-C."""
    with contextlib.ExitStack() as at_end, contextlib.closing(cm.Entrypoint("exchange")) as entrypoint:
        listen(entrypoint, path, at_end)
        print(f"listening at {path}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            entrypoint.serve_forever()


def offer(path: Path) -> None:
    """The exporter: puts three descriptors on the shelf, and ends when the bell rings."""
    shelf = cm.connect(path, timeout=PATIENCE).cast(Shelf)
    with (
        cm.Descriptor(os.memfd_create("exported")) as memory,
        cm.Descriptor(os.eventfd(0)) as bell,
        cm.Descriptor(os.pidfd_open(os.getpid())) as process,
    ):
        os.write(memory.fileno(), TEXT)
        shelf.put("memory", memory)
        shelf.put("bell", bell)
        shelf.put("exporter", process)
        print("exported", flush=True)
        select.select([bell], [], [], PATIENCE)


def fetch(path: Path) -> None:
    """The importer: gets the three, and says what they are."""
    shelf = cm.connect(path, timeout=PATIENCE).cast(Shelf)
    with shelf.get("memory") as memory, shelf.get("bell") as bell, shelf.get("exporter") as exporter:
        with mmap.mmap(memory.fileno(), len(TEXT), prot=mmap.PROT_READ) as mapped:
            print(f"the memory has: {mapped[:].decode()}")
        os.eventfd_write(bell.fileno(), 1)
        ended, _, _ = select.select([exporter], [], [], PATIENCE)
        print("the exporter has ended" if ended else "the exporter did not hear the bell")
    shelf.clear()


def main() -> None:
    """The exchange, and two processes that use it."""
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.ExitStack() as at_end,
        cm.Entrypoint("exchange") as entrypoint,
    ):
        path = Path(directory) / "exchange"
        listen(entrypoint, path, at_end)
        this = [sys.executable, __file__]
        with subprocess.Popen([*this, "export", path], stdout=subprocess.PIPE) as exporter:  # noqa: S603 - this program
            if exporter.stdout is not None:
                exporter.stdout.readline()  # all three are there
            subprocess.run([*this, "import", path], check=True, timeout=PATIENCE)  # noqa: S603 - likewise
    sys.exit(exporter.returncode)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["serve", where]:
            serve(Path(where))
        case ["export", where]:
            offer(Path(where))
        case ["import", where]:
            fetch(Path(where))
        case _:
            sys.exit(__doc__)
