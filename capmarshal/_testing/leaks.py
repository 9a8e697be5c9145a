"""What is open, and what a test has left: descriptors that were not open before it, or are no more, and processes."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from capmarshal._descriptors import reaper

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator, Mapping

# Seconds: reached only where something leaks, or blocks.
_MOMENT = 1.0
_PATIENCE = 30.0
_PAUSE = 0.002


class Leaked(AssertionError):
    """A block has left descriptors or child processes: the message names each."""


def open_descriptors() -> dict[int, str]:
    """The descriptors that this process has open, and what each is, as ``/proc/self/fd`` says.

    Returns:
        By number: ``"socket:[1234]"``, ``"pipe:[1234]"``, ``"/memfd:name (deleted)"``, or the path of a file.

    Raises:
        OSError: ``/proc`` is not mounted.
    """
    listed = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - iterdir() would keep a descriptor of its own open
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            listed[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - the target is not a path
    return listed


def settled(times: int = 1) -> dict[int, str]:
    """As :func:`open_descriptors`, without garbage.

    Args:
        times: how often garbage is collected: what is found to be that may close what others are found garbage for.
    """
    for _ in range(times):
        gc.collect()
        if not reaper.wait(_PATIENCE):
            raise Leaked("what was received is still being closed: a test has left what blocks when it is closed")
    return open_descriptors()


def differences(before: Mapping[int, str], after: Mapping[int, str]) -> list[str]:
    """What is not as before, a line each."""
    lines = [f"leaked: {number} -> {after[number]}" for number in sorted(after.keys() - before.keys())]
    lines += [f"closed, but not the test's own: {n} -> {before[n]}" for n in sorted(before.keys() - after.keys())]
    lines += [
        f"replaced: {number} -> {before[number]} is now {after[number]}"
        for number in sorted(before.keys() & after.keys())
        if before[number] != after[number]
    ]
    return lines


def left(before: Mapping[int, str]) -> list[str]:
    """What is open and was not before, or the other way round; in words, none where it is the same."""
    # A thread that has done its work, of the reaper's or of an event loop's, refers to it for a moment longer, and so
    # perhaps to an entrypoint, which is garbage otherwise.  Nobody says when it has let go.
    deadline = time.monotonic() + _MOMENT
    while (lines := differences(before, settled())) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return lines


def children() -> set[int]:
    """The child processes of this one, also those that have ended and were not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread may have ended meanwhile.
        with contextlib.suppress(OSError):
            found.update(map(int, (task / "children").read_text(encoding="ascii").split()))
    # A kernel without CONFIG_PROC_CHILDREN lists none, and there are some.
    return found or {int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal() and _is_ours(each)}


def _status(process: Path) -> list[bytes]:
    """Its state, its parent and so on: what is behind its name, which may hold anything."""
    return (process / "stat").read_bytes().rpartition(b")")[2].split()


def _is_ours(process: Path) -> bool:
    """Whether a process is a child of this one; it may have ended meanwhile."""
    with contextlib.suppress(OSError):
        return int(_status(process)[1]) == os.getpid()
    return False


def _command(process: Path) -> str:
    """What it was started with; its name alone, as ps(1) has it, where that is not known any more, or to nobody."""
    deadline = time.monotonic() + _MOMENT
    while not (line := (process / "cmdline").read_bytes()):
        # The kernel closes what execve(2) closes, and so lets subprocess.Popen return, before it lists the arguments.
        if _status(process)[0] == b"Z" or time.monotonic() >= deadline:
            line = b"[" + (process / "comm").read_bytes().removesuffix(b"\n") + b"]"
            break
        time.sleep(_PAUSE)
    return line.removesuffix(b"\0").replace(b"\0", b" ").decode(errors="replace")


def _end(child: int) -> str:
    """Kills and collects a child; in words, none where somebody else has collected it."""
    try:
        command = _command(Path(f"/proc/{child}"))
        os.kill(child, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # Whoever collects all of them may be first.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    return f"child left behind: {child} {command}"


def _end_new(had: set[int]) -> list[str]:
    return [words for child in sorted(children() - had) if (words := _end(child))]


def forget_last_error() -> None:
    """Lets go of what the interpreter keeps of the last error, for debuggers.

    So pytest does between two tests, but after fixtures have begun: what a test that has failed had open would be
    closed in the next one.
    """
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        with contextlib.suppress(AttributeError):
            delattr(sys, name)


def forget_errors(records: Iterable[logging.LogRecord]) -> None:
    """Lets go of the errors in lines of the log that were written, and are kept for the test: their text stays.

    A server's journal logs what a method has raised, whose frames know what that had open.
    """
    for record in records:
        record.exc_info = None


@contextlib.contextmanager
def no_leaks() -> Iterator[None]:
    """A block, or a decorator of a test: at its end the same descriptors are open as before, and no child is left.

    Garbage is collected before it looks.  Children that were started in the block and not waited for are killed.  What
    a library opens once and keeps, have it open before.

    Raises:
        Leaked: an AssertionError, which names what was left; not where the block has raised.
    """
    # It keeps a descriptor of its own open, from when it is first needed.
    reaper.prepare()
    before, had = settled(), children()
    try:
        yield
    except BaseException:
        _end_new(had)
        raise
    wrong = left(before)
    wrong += _end_new(had)
    if wrong:
        raise Leaked("\n".join(wrong))
