"""A typed call, and one that passes a descriptor, against what others offer for calls between processes."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import capmarshal as cm
from bench import places, rivals, serving
from bench.adder import add_often
from bench.bars import bar_chart
from bench.figures import Comparison, Report, interleave
from bench.inodes import Inodes, pass_often

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from bench.places import Cores
    from bench.settings import Settings

TAKES = "40 s"
_CALLS, _QUICK_CALLS, _ROUNDS = 1000, 10, 11
_ADD, _PASS = "add(int, int)", "a descriptor, answered with its inode"

# Seconds for a server to start; reached only when something is wrong.
_PATIENCE = 60.0

_CAPMARSHAL = "capmarshal"
# The most that capmarshal may be a multiple of: those that are pure Python, and the others; and what is no package but
# the same work without capabilities.
_TARGET_PURE, _TARGET, _TARGETS = 0.5, 1.0, {"by_hand": 0.95}


def _name(rival: ModuleType) -> str:
    return f"{rival.NAME} {rival.version()}" if rival.PACKAGE else str(rival.NAME)


@contextlib.contextmanager
def _connected(rival: ModuleType) -> Iterator[Any]:
    """A client of a peer, with a server of its own."""
    script = Path(rivals.__file__).with_name("__main__.py")
    name = rival.__name__.rpartition(".")[2]
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        command = [sys.executable, "-P", str(script), name, directory]
        server = subprocess.Popen(command, stdin=subprocess.PIPE)
        stack.callback(serving.end, server)
        # It writes its number there before it serves; a client waits for it from then on.
        written = Path(directory, "pid")
        give_up = time.monotonic() + _PATIENCE
        while not (written.exists() and written.read_text()):
            if server.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"the server of {rival.NAME} did not start")
            time.sleep(0.01)
        client = rival.connect(directory)
        stack.callback(client.close)
        yield client


def _add(client: Any, calls: int) -> float:
    """Seconds for one call, after an untimed warm-up."""
    client.add_often(calls // 10 + 1)
    return float(client.add_often(calls)) / calls / 1e9


def _pass(client: Any, number: int, calls: int) -> float:
    """The same with a descriptor."""
    client.pass_often(number, calls // 10 + 1)
    return float(client.pass_often(number, calls)) / calls / 1e9


class _Peers:
    """Whoever can be measured here."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.clients: dict[str, Any] = {}
        self.targets: dict[str, float] = {}
        self.cannot: dict[str, str] = {}
        self.missing: list[str] = []
        for name in rivals.NAMES:
            rival = importlib.import_module(f"bench.rivals.{name}")
            if why := rival.unavailable():
                self.missing.append(f"{rival.NAME}: {why}")
                continue
            shown = _name(rival)
            self.clients[shown] = stack.enter_context(_connected(rival))
            self.targets[shown] = _TARGETS.get(name, _TARGET_PURE if rival.PURE_PYTHON else _TARGET)
            if rival.CANNOT:
                self.cannot[shown] = f"cannot: {rival.CANNOT}"


def _measure(
    inodes: Inodes, file: cm.Descriptor, peers: _Peers, calls: int, rounds: int, cores: Cores
) -> list[Comparison]:
    """Both calls at one place."""
    adding: dict[str, Callable[[], float]] = {_CAPMARSHAL: partial(add_often, inodes.add, calls)}
    passing: dict[str, Callable[[], float]] = {_CAPMARSHAL: partial(pass_often, inodes, file, calls)}
    for name, client in peers.clients.items():
        client.run_on(cores.server)
        adding[name] = partial(_add, client, calls)
        if name not in peers.cannot:
            passing[name] = partial(_pass, client, file.fileno(), calls)
    serving.place(inodes, cores)
    added = Comparison(_ADD, cores.kind, cores, interleave(adding, rounds))
    passed = Comparison(_PASS, cores.kind, cores, interleave(passing, rounds), cannot=peers.cannot)
    for name, target in peers.targets.items():
        added.compare(_CAPMARSHAL, name, target)
        if name in passing:
            passed.compare(_CAPMARSHAL, name)
    return [added, passed]


def run(settings: Settings) -> Report:
    """Measures both calls at each place."""
    calls = _QUICK_CALLS if settings.quick else _CALLS
    report = Report(settings={"loops": calls})
    with contextlib.ExitStack() as stack:
        inodes = stack.enter_context(serving.served("inodes")).cast(Inodes)
        file = stack.enter_context(cm.Descriptor(os.memfd_create("bench", os.MFD_CLOEXEC)))
        peers = _Peers(stack)
        for cores in places.places():
            report.comparisons += _measure(inodes, file, peers, calls, settings.rounds_or(_ROUNDS), cores)
        report.notes = peers.missing
    report.pictures["peers.svg"] = bar_chart("Calls between two processes", report.comparisons)
    return report
