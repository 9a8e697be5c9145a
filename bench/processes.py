"""The processes of a benchmark: how they start, and how they end."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import capmarshal as cm
from bench import CHECKOUT

# Seconds for a process to start, and to end; reached only when something is wrong.
PATIENCE = 60.0
Process = subprocess.Popen[str]


@contextlib.contextmanager
def running(
    module: str,
    *arguments: str,
    parent: cm.Capability | None = None,
    under: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """A process that runs a module of this package; it ends with its standard input, which is the block's end.

    Args:
        module: its name.
        arguments: of its command line.
        parent: the capability that it is given.
        under: a command that runs the rest of its arguments.
        env: its environment, if it is not this process's.
    """
    command = [*under, sys.executable, "-m", f"bench.{module}", *arguments]
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    start = subprocess.Popen if parent is None else partial(cm.spawn, parent=parent)
    process = start(command, cwd=CHECKOUT, **options)
    try:
        yield process
    finally:
        _end(process)
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with status {process.returncode}")


def _end(process: Process) -> None:
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def await_end() -> None:
    """In that process: returns when the benchmark ends it, or has itself ended, however that came."""
    # Ctrl-C reaches the whole process group: the benchmark's own words about it are enough.
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()


def line_of(process: Process, tell: str = "") -> str:
    """The next line that a process prints, after it was told one, where there is something to tell."""
    if tell:
        print(tell, file=process.stdin, flush=True)
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit(f"{process.args!r} ended")
    return line.strip()
