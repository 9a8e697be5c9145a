"""What a test left behind: descriptors that were not open before it, or are no more, and child processes."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import time
from pathlib import Path

import awaiting
from capmarshal._descriptors import reaper as _reaper
from patience import PATIENCE

# Seconds: reached only where something leaks.
_MOMENT = 1.0


def listing():
    """Each open descriptor of this process, and what it is: {number: target}."""
    listed = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - iterdir() would keep a descriptor of its own open
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            listed[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - the target is not a path
    return listed


def settled_listing(times=1):
    """As :func:`listing`, without garbage; what is found to be that may close what others are found garbage for."""
    for _ in range(times):
        gc.collect()
        assert _reaper.wait(PATIENCE), "the reaper is still closing something: a test left it work that blocks"
    return listing()


def left(before):
    """What is open and was not before, or the other way round; in words, none where it is the same."""
    # A thread that has done its work, of the reaper's or of an event loop's, refers to it for a moment longer, and so
    # perhaps to an entrypoint, which is garbage otherwise.  Nobody says when it has let go.
    deadline = time.monotonic() + _MOMENT
    while (lines := differences(before, settled_listing())) and time.monotonic() < deadline:
        time.sleep(0.002)  # a poll
    return lines


def differences(before, after):
    lines = [f"leaked: {number} -> {after[number]}" for number in sorted(after.keys() - before.keys())]
    lines += [f"closed, but not the test's own: {n} -> {before[n]}" for n in sorted(before.keys() - after.keys())]
    lines += [
        f"replaced: {number} -> {before[number]} is now {after[number]}"
        for number in sorted(before.keys() & after.keys())
        if before[number] != after[number]
    ]
    return lines


def end_children():
    """Kills and collects whatever children there are, and says which they were."""
    lines = []
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            lines.append(f"child left behind: {pid} {command}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return lines


def open_numbers():
    """The numbers that are open, in this process or a forked one.

    Asks for each number in turn: it needs no descriptor of its own, and no /proc, which an ordinary user's process
    may not read once it has changed user.
    """
    awaiting.collect()
    found = set()
    for number in range(2048):
        with contextlib.suppress(OSError):
            fcntl.fcntl(number, fcntl.F_GETFD)
            found.add(number)
    return found
