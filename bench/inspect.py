"""``capmarshal inspect`` of 500 entrypoints with 5,000 channels, against other ways to read what the kernel lists.

``python -m bench.inspect serve ENTRYPOINTS CHANNELS`` is one process that serves, and starts its client.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import capmarshal as cm
from bench import processes
from bench.measuring import Goal, Report, Work
from capmarshal._capabilities.capability import open_door_of
from capmarshal._inspect.data import as_json
from capmarshal._inspect.looking import look

TAKES, ROUNDS = "40 s", 9
_SERVERS, _ENTRYPOINTS, _CHANNELS = 10, 50, 10
_QUICK_SERVERS, _QUICK_ENTRYPOINTS, _QUICK_CHANNELS = 2, 3, 2
_COMMAND, _LOOK = "capmarshal inspect --json", "a look, in a program"
_SS, _PROC = "ss -xap", "/proc/net/unix and /proc/PID/fd"
_TARGET = 4.0


class Thing(cm.Interface):
    """What each entrypoint serves."""

    @cm.method
    def touch(self) -> None:
        """Does nothing."""


class Things(cm.Interface):
    """What the client is given."""

    @cm.method
    def all(self) -> list[Thing]:
        """One of each entrypoint."""


class _Thing(Thing):
    def touch(self) -> None:
        pass


class _Things(Things):
    def __init__(self, things: list[Thing]) -> None:
        self._things = things

    def all(self) -> list[Thing]:
        return self._things


def _run(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def _look(servers: frozenset[int], entrypoints: int, channels: int) -> float:
    begin = time.perf_counter()
    view = look()
    as_json(view)
    taken = time.perf_counter() - begin
    # There may be others on this machine, of another run perhaps.
    ours = view.only(servers).entrypoints
    seen = [each for each in ours if each.door is not None and each.door.label.startswith("inspected ")]
    if (found := (len(seen), sum(len(each.channels) for each in seen))) != (entrypoints, channels):
        raise SystemExit(f"entrypoints and channels: {found} were seen of {(entrypoints, channels)}")
    return taken


def _read() -> float:
    """The least that tells who has which socket: without the peers, and what waits."""
    begin = time.perf_counter()
    Path("/proc/net/unix").read_bytes()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                for number in os.scandir(process / "fd"):
                    with contextlib.suppress(OSError):
                        os.readlink(number.path)  # noqa: PTH115 - the quickest way
    return time.perf_counter() - begin


def run(report: Report) -> Iterator[Work]:
    quick = report.quick
    servers, entrypoints, channels = (
        (_QUICK_SERVERS, _QUICK_ENTRYPOINTS, _QUICK_CHANNELS) if quick else (_SERVERS, _ENTRYPOINTS, _CHANNELS)
    )
    processes.make_room(entrypoints * (channels + 4))
    many, all_channels = servers * entrypoints, servers * entrypoints * channels
    report.settings |= {"entrypoints": many, "channels": all_channels}
    with contextlib.ExitStack() as stack:
        counts = str(entrypoints), str(channels)
        started = [stack.enter_context(processes.running("inspect", "serve", *counts)) for _ in range(servers)]
        for process in started:
            processes.line_of(process)
        contenders: dict[str, Callable[[], float]] = {
            _COMMAND: partial(_run, [sys.executable, "-P", "-m", "capmarshal", "inspect", "--json"]),
            _LOOK: partial(_look, frozenset(process.pid for process in started), many, all_channels),
            _PROC: _read,
        }
        cannot = {}
        if (path := shutil.which("ss")) is None:
            cannot[_SS] = "iproute2 is not installed"
        else:
            contenders[_SS] = partial(_run, [path, "-xap"])
        goals = [Goal(_COMMAND, _SS, _TARGET), Goal(_LOOK, _PROC)]
        yield Work(f"{many:,} entrypoints, {all_channels:,} channels", None, contenders, goals, cannot)


def _serve(entrypoints: int, channels: int) -> None:
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(cm.Entrypoint(f"inspected {number}")) for number in range(entrypoints)]
        things: list[Thing] = [each.manage(_Thing()).cast(Thing) for each in served]
        given = served[0].manage(_Things(things))
        client = stack.enter_context(processes.running("inspect", "call", str(channels), parent=given))
        print(processes.line_of(client), flush=True)
        processes.await_end()


def _call(channels: int) -> None:
    for thing in (things := cm.parent().cast(Things).all()):
        # As that many threads would that call at the same time: whoever finds no channel idle makes one.
        idle, used = open_door_of(cm.capability(thing)).idle, []
        for _ in range(channels):
            thing.touch()
            used.append(idle.pop())
        idle += used
    print(f"holds {len(things)}", flush=True)
    processes.await_end()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(*map(int, sys.argv[2:]))
    else:
        _call(int(sys.argv[2]))
