"""What capmarshal is compared with does the work that it is said to do.  Nothing is asserted about a time."""

from __future__ import annotations

import importlib
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
PATIENCE = 60
SHARED = ["client", "daemon", "records"]
NAMES = sorted({file.stem for file in (CHECKOUT / "bench" / "rivals").glob("[!_]*.py")} - set(SHARED))

# The client, in a process of its own: what a peer leaves open until its process ends is no concern of this one.
CLIENT = """\
import os, sys
from pathlib import Path

checkout, name, directory, server = sys.argv[1:]
sys.path.insert(0, checkout)
from bench import places, rivals

core = min(os.sched_getaffinity(0))
file = os.memfd_create("file")

client = rivals.connect(name, directory)
places.family_runs_on(int(server), core)
for task in Path(f"/proc/{server}/task").iterdir():
    assert os.sched_getaffinity(int(task.name)) == {core}
assert client.add_often(1000) > 0
# Twice: a receiver that did not close them would run out of numbers.
if not rivals.RIVALS[name].cannot:
    client.pass_often(file, 100)
    open_there = len(os.listdir(f"/proc/{server}/fd"))
    assert client.pass_often(file, 100) > 0
    assert len(os.listdir(f"/proc/{server}/fd")) <= open_there
client.close()
"""


@pytest.fixture
def rivals(monkeypatch):
    """rivals(name): what is said of a peer; skips where it cannot be measured."""
    monkeypatch.syspath_prepend(CHECKOUT)

    def find(name):
        rival = importlib.import_module("bench.rivals").RIVALS[name]
        if reason := rival.unavailable():
            pytest.skip(reason)
        return rival

    yield find
    for name in [name for name in sys.modules if name.partition(".")[0] == "bench"]:
        del sys.modules[name]


def test_every_module_is_listed():
    listed = subprocess.run(
        [sys.executable, "-c", "from bench import rivals; print(*sorted(rivals.RIVALS))"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert listed.stdout.split() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(rivals, name):
    rival = rivals(name)

    assert rival.name in rival.shown
    assert 0 < rival.target <= 1


@pytest.mark.parametrize("name", NAMES)
def test_it_adds_and_hands_over_and_its_server_ends_with_its_input(rivals, tmp_path, name):
    rivals(name)
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.rivals", name, tmp_path],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        client = subprocess.run(
            [sys.executable, "-P", "-W", "error", "-c", CLIENT, CHECKOUT, name, tmp_path, str(server.pid)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        _, said = server.communicate(timeout=PATIENCE)
    finally:
        server.kill()
        server.communicate()

    assert (client.returncode, client.stderr) == (0, "")
    assert (server.returncode, said) == (0, "")


def test_dbus_daemon_ends_with_a_server_that_is_killed(rivals, tmp_path):
    rivals("dbus")
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.rivals", "dbus", tmp_path], stdin=subprocess.PIPE, cwd=CHECKOUT
    )
    try:
        importlib.import_module("bench.rivals").connect("dbus", str(tmp_path)).close()
        [shell] = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        daemons = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        watched = [os.pidfd_open(int(pid)) for pid in daemons if "dbus-daemon" in Path(f"/proc/{pid}/comm").read_text()]
    finally:
        server.kill()
        server.communicate()

    [daemon] = watched
    ended, _, _ = select.select([daemon], [], [], PATIENCE)
    os.close(daemon)
    assert ended
