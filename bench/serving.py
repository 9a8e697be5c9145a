"""A server process for a benchmark: how it is started, what each can do, how it ends."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import capmarshal as cm
from bench import CHECKOUT, by_hand, places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Seconds for the server to start, and to end; reached only when something is wrong.
_PATIENCE = 60.0


def command(module: str, *arguments: str) -> list[str]:
    """Runs a module of this package; to be started in the checkout."""
    return [sys.executable, "-m", f"bench.{module}", *arguments]


class Station(cm.Interface):
    """What every server of a benchmark can do."""

    @cm.method
    def run_on(self, cpu: int) -> None:
        """Has the server's process run on one core from here on."""

    @cm.method
    def settle(self) -> None:
        """Returns when everything that arrived in earlier calls is closed."""

    @cm.method
    def mark(self) -> None:
        """Has what was counted in the server's process written down: see :mod:`bench.counting`."""

    @cm.method
    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        """Has a thread of the server's process serve something without capmarshal: a name of :mod:`by_hand`."""


class StationServer(Station):
    """Does that."""

    def run_on(self, cpu: int) -> None:
        """Has the server's process run on one core from here on."""
        places.run_on(cpu)

    def settle(self) -> None:
        """Returns when everything that arrived in earlier calls is closed."""
        # Here, so that a version without this module can be served: bench.neighbours measures those too.
        from capmarshal._descriptors import reaper

        if not reaper.wait(_PATIENCE):
            raise TimeoutError("the server does not come to closing what it got")

    def mark(self) -> None:
        """Has what was counted in the server's process written down: see :mod:`bench.counting`."""
        os.getloadavg()

    def serve_by_hand(self, name: str, far: socket.socket) -> None:
        """Has a thread of the server's process serve something without capmarshal: a name of :mod:`by_hand`."""
        threading.Thread(target=_serve_by_hand, args=(name, cm.keep(far)), name=name, daemon=True).start()


def _serve_by_hand(name: str, far: socket.socket) -> None:
    with far, contextlib.suppress(EOFError):
        by_hand.SERVERS[name](far)


@contextlib.contextmanager
def served_by_hand(station: Station, name: str) -> Iterator[socket.socket]:
    """The client's end of something that the server serves without capmarshal, as long as the block runs."""
    near, far = socket.socketpair(socket.AF_UNIX, by_hand.KINDS[name])
    with near:
        with far:
            station.serve_by_hand(name, far)
        yield near


def place(station: Station, cores: places.Cores) -> None:
    """Where the client, this process, and the server run from here on."""
    station.run_on(cores.server)
    places.run_on(cores.client)


class Host(cm.Interface):
    """What a benchmark gives its server: all that the server holds."""

    @cm.method
    def offer(self, target: cm.Capability) -> None:
        """Takes what is to be called."""


class _Host(Host):
    def __init__(self) -> None:
        self.offered: queue.SimpleQueue[cm.Capability] = queue.SimpleQueue()

    def offer(self, target: cm.Capability) -> None:
        """Takes what is to be called."""
        self.offered.put(target)


@contextlib.contextmanager
def served(module: str, under: Sequence[str] = ()) -> Iterator[cm.Capability]:
    """The object that a module of this package serves, in a process of its own: see :func:`serve`.

    Args:
        module: its name.
        under: a command that runs the rest of its arguments.
    """
    host = _Host()
    with contextlib.ExitStack() as running:
        # Ends before anything is measured: then no thread but the calling one does anything here, as in most clients.
        with cm.Entrypoint("host") as entrypoint:
            program = [*under, *command(module)]
            server = cm.spawn(program, parent=entrypoint.manage(host), stdin=subprocess.PIPE, cwd=CHECKOUT)
            running.callback(end, server)
            offered = _await_offer(host, server)
        yield offered


def _await_offer(host: _Host, server: subprocess.Popen[Any]) -> cm.Capability:
    give_up = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(queue.Empty):
            return host.offered.get(timeout=0.1)
    raise SystemExit("the server did not start")


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a process that runs until its standard input ends, which this process holds."""
    try:
        process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise SystemExit(f"{process.args!r} did not end") from None
    if process.returncode != 0:
        raise SystemExit(f"{process.args!r} ended with status {process.returncode}")


def await_end() -> None:
    """In that process: returns when the benchmark ends it, or has itself ended, however that came."""
    # Ctrl-C reaches the whole process group: the benchmark's own words about it are enough.
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.buffer.read()


def serve(entrypoint: cm.Entrypoint, target: cm.Interface) -> None:
    """In a server's process: serves until the benchmark ends it."""
    with entrypoint:
        cm.parent().cast(Host).offer(entrypoint.manage(target))
        await_end()
