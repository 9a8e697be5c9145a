"""A process that works, and its parent, which draws a bar of how far it is; Ctrl-C ends the work, and then both.

    python progress.py 22       looks for a number that makes a text's SHA-256 begin with so many zero bits

The work is a generator in the process that does it, and goes on as long as somebody takes its items.  The bar is drawn
by rich, where that is installed.
"""

import contextlib
import hashlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import capmarshal as cm

TEXT = "capmarshal"
# Numbers that are tried between two words about it: some milliseconds.
AT_ONCE = 10_000
# What an int may be that is sent.
MOST = 1 << 62


@dataclass(frozen=True)
class Step:
    """How far it is."""

    done: int
    total: int
    message: str


class Worker(cm.Interface):
    """What the parent may ask for."""

    @cm.method
    def search(self, text: str, bits: int) -> Iterator[Step]:
        """Looks for a number, and says how far it is; the last message is what it has found."""


class WorkerServer(Worker):
    """Works, as long as somebody wants to know how far it is."""

    def search(self, text: str, bits: int) -> Iterator[Step]:
        """See :meth:`Worker.search`."""
        likely, tried = min(1 << bits, MOST), 0
        try:
            while True:
                for number in range(tried, tried + AT_ONCE):
                    digest = hashlib.sha256(f"{text} {number}".encode()).digest()
                    if int.from_bytes(digest, "big") >> (256 - bits) == 0:
                        yield Step(likely, likely, f"found: {text} {number}")
                        return
                tried += AT_ONCE
                # It may take longer than is likely.
                yield Step(min(tried, likely), likely, f"{tried} tried")
        finally:
            # Also where nobody takes the next step: GeneratorExit is raised above.
            print(f"worker: ended, {tried} tried in vain", file=sys.stderr, flush=True)


def work() -> None:
    """Serves until the parent has closed its end of the socket that is the standard input."""
    # The terminal sends it to both; it is the parent that decides what becomes of the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with cm.Entrypoint("worker") as entrypoint:
        cm.send_capability(sys.stdin, entrypoint.manage(WorkerServer()))
        sys.stdin.read()


def draw(steps: Iterable[Step]) -> None:
    """Shows each step as it comes."""
    try:
        from rich.progress import Progress
    except ImportError:
        for step in steps:
            print(f"{100 * step.done // step.total:3} %  {step.message}", flush=True)
        return
    with Progress() as bar:
        task = bar.add_task("")
        for step in steps:
            bar.update(task, completed=step.done, total=step.total, description=step.message)


@contextlib.contextmanager
def working() -> Iterator[Worker]:
    """A worker, in a process of its own that ends with the block."""
    near, far = socket.socketpair()
    with subprocess.Popen([sys.executable, __file__, "work"], stdin=far.fileno()), near:  # noqa: S603 - it is ours
        far.close()
        yield cm.receive_capability(near, timeout=30).cast(Worker)


def main() -> int:
    """Draws until something is found, or Ctrl-C comes."""
    try:
        with working() as worker:
            draw(worker.search(TEXT, int(sys.argv[1])))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        sys.exit(main())
