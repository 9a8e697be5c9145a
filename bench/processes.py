"""The processes of a benchmark: how they start, and how they end."""

import contextlib
import queue
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import capmarshal as cm
from bench import CHECKOUT

# Seconds for a process to start, and to end; reached only when something is wrong.
PATIENCE = 60.0


def command(module: str, *arguments: str) -> list[str]:
    """Runs a module of this package; to be started in the checkout."""
    return [sys.executable, "-m", f"bench.{module}", *arguments]


class Host(cm.Interface):
    """What a benchmark gives its server: all that the server holds."""

    @cm.method
    def offer(self, target: cm.Capability) -> None:
        """Takes what is to be called."""


class _Host(Host):
    def __init__(self) -> None:
        self.offered: queue.SimpleQueue[cm.Capability] = queue.SimpleQueue()

    def offer(self, target: cm.Capability) -> None:
        self.offered.put(target)


@contextlib.contextmanager
def served(module: str = "servers", under: Sequence[str] = ()) -> Iterator[cm.Capability]:
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
    give_up = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(queue.Empty):
            return host.offered.get(timeout=0.1)
    raise SystemExit("the server did not start")


def serve(entrypoint: cm.Entrypoint, target: cm.Interface) -> None:
    """In a server's process: serves until the benchmark ends it."""
    with entrypoint:
        cm.parent().cast(Host).offer(entrypoint.manage(target))
        await_end()


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a process that runs until its standard input ends, which this process holds."""
    try:
        process.communicate(timeout=PATIENCE)
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


def line_of(process: subprocess.Popen[Any], tell: str = "") -> str:
    """The next line that a process prints, after it was told one, where there is something to tell."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError
    if tell:
        process.stdin.write(f"{tell}\n".encode())
        process.stdin.flush()
    line: bytes = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args!r} ended")
    return line.decode().strip()
