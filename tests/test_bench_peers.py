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
NAMES = [
    "sendmsg + msgspec by hand",
    "multiprocessing.Connection",
    "multiprocessing managers",
    "rpyc",
    "Pyro5",
    "pyzmq",
    "dbus-fast",
    "jeepney",
    "pycapnp",
    "grpcio",
]

# The client, in a process of its own: what a peer leaves open until its process ends is no concern of this one.
CLIENT = """\
import os, sys
from pathlib import Path

checkout, name = sys.argv[1:]
sys.path.insert(0, checkout)
from bench import peers
from bench.processes import Cores
from bench.servers import served

def family(pid):
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))

core = max(os.sched_getaffinity(0))
cores = Cores(min(os.sched_getaffinity(0)), core)
file = os.memfd_create("file")

with served(cores) as works:
    before = set(family(os.getpid()))
    with peers.connected(name, works, cores) as client:
        # Of what is written by hand, the one that serves capmarshal; and of D-Bus the daemon, too.
        servers = set(family(os.getpid())) - before or before - {os.getpid()}
        for server in servers:
            for task in Path(f"/proc/{server}/task").iterdir():
                assert os.sched_getaffinity(int(task.name)) == {core}
        assert client.add_often(1000) > 0
        # Twice: a receiver that did not close them would run out of numbers.
        if not peers.PEERS[name].cannot:
            client.pass_often(file, 100)
            open_there = {server: len(os.listdir(f"/proc/{server}/fd")) for server in servers}
            assert client.pass_often(file, 100) > 0
            assert {server: len(os.listdir(f"/proc/{server}/fd")) for server in servers} == open_there
"""


@pytest.fixture
def peers(monkeypatch):
    """peers(name): what is said of a peer; skips where it cannot be measured."""
    monkeypatch.syspath_prepend(CHECKOUT)

    def find(name):
        peer = importlib.import_module("bench.peers").PEERS[name]
        if reason := peer.unavailable():
            pytest.skip(reason)
        return peer

    yield find
    for name in [name for name in sys.modules if name.partition(".")[0] == "bench"]:
        del sys.modules[name]


def test_every_peer_is_tested():
    listed = subprocess.run(
        [sys.executable, "-c", "from bench.peers import PEERS; print(*PEERS, sep='\\n')"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert listed.stdout.splitlines() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_to_reach(peers, name):
    assert 0 < peers(name).target <= 1


@pytest.mark.parametrize("name", NAMES)
def test_it_adds_and_hands_over_on_its_core_and_its_server_ends(peers, name):
    peers(name)
    client = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", CLIENT, CHECKOUT, name],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    # The server's words, too.
    assert (client.returncode, client.stderr) == (0, "")


def children(pid):
    return [pid for task in Path(f"/proc/{pid}/task").iterdir() for pid in (task / "children").read_text().split()]


def test_dbus_daemon_ends_with_a_server_that_is_killed(peers, tmp_path):
    _, connect = peers("dbus-fast").way
    path = str(tmp_path / "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.processes", "bench.peers", "serve", "dbus-fast", path],
        stdin=subprocess.PIPE,
        cwd=CHECKOUT,
    )
    try:
        importlib.import_module("bench.processes").await_listener(path)
        with connect(path):
            pass
        [shell] = children(server.pid)
        daemons = children(shell)
        watched = [os.pidfd_open(int(pid)) for pid in daemons if "dbus-daemon" in Path(f"/proc/{pid}/comm").read_text()]
    finally:
        server.kill()
        server.communicate()

    [daemon] = watched
    ended, _, _ = select.select([daemon], [], [], PATIENCE)
    os.close(daemon)
    assert ended
