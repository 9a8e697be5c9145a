"""Several hosts with a node of NATS each, of which a test parts some from the others, and joins them again.

Two kinds, with one interface: hosts of one network each have a network namespace of their own, and between those that
are parted all packets are lost; where there may be no namespaces, they are of this one, and what stands between two
holds all bytes.

A bridge of a host need not be in the host's namespace: its node is reached at ``host.address`` from here, whatever is
parted, as by loopback.  ``host.address_of(other)`` is the node of another one, as from that host.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nats_servers import Node
from patience import PATIENCE, until

_RELAY = Path(__file__).with_name("relay.py")
# Of hosts with networks of their own: of as many as there may be, and within each.
ADDRESSES = [f"10.77.0.{number + 1}" for number in range(5)]
_PORTS = {"nats": 4222, "cluster": 6222, "monitoring": 8222}


class Host:
    """One of them.

    Attributes:
        name: of it.
        node: the node of NATS that is there.
    """

    def __init__(self, number):
        self.number, self.name = number, f"host{number}"
        self.node = None
        self._links = {}

    @property
    def address(self):
        """Of its node, from here, and from programs of this host."""
        return self.node.address

    def address_of(self, other):
        """Of another host's node, from programs of this one."""
        return f"nats://127.0.0.1:{self._links['nats', other.number][1]}"

    def __repr__(self):
        return f"<{self.name}>"


class _HostNode(Node):
    """A node that is reached by relays."""

    def __init__(self, host, *arguments, **options):
        self._reached = {name: port for (name, number), (_, port) in host._links.items() if number == host.number}
        super().__init__(*arguments, **options)

    def port(self, name):
        return self._reached[name]


class _Relay:
    """The program of that name, running."""

    def __init__(self, links, prefix=()):
        command = [*prefix, sys.executable, "-P", str(_RELAY), json.dumps(links)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=[link[0] for link in links]
        )
        self._answered()

    def part(self, pairs):
        """Returns when that is so."""
        self._process.stdin.write(json.dumps(pairs).encode() + b"\n")
        self._answered()

    def end(self):
        """Ends it."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    def _answered(self):
        assert select.select([self._process.stdout], [], [], PATIENCE)[0], "a relay says nothing"
        assert self._process.stdout.read(1) == b"\n", "a relay has ended"


class _Network:
    """What both kinds have in common."""

    def __init__(self, directory, count, stack, **options):
        self.hosts = [Host(number) for number in range(count)]
        self._stack = stack
        for host in self.hosts:
            for name in ("nats", "monitoring"):
                self._listen(host, name, host)
            for other in self.hosts:
                if other is not host:
                    self._listen(host, "nats", other)
        self._prepare()
        for host in self.hosts:
            place = directory / host.name
            place.mkdir()
            host.node = self._start(host, place, **options)
            stack.callback(host.node.kill)
        self._relay()
        until(lambda: all(host.node.knows() == count - 1 for host in self.hosts))

    def part(self, *groups):
        """Nothing gets from a group of hosts to another one any more; hosts of none of them are one more group."""
        named = set(itertools.chain(*groups))
        rest = [host for host in self.hosts if host not in named]
        groups = [list(group) for group in groups] + [rest] * bool(rest)
        assert sum(map(len, groups)) == len(self.hosts), "a host is in one group"
        self._part(groups)

    def join(self):
        """All of them are in one network again; their nodes find each other a little later."""
        self._part([self.hosts])

    def parted(self, *groups):
        """Waits until the nodes have noticed that they are parted so."""
        self._know([len(group) - 1 for group in groups for _ in group], [host for group in groups for host in group])

    def joined(self):
        """Waits until the nodes have found each other again."""
        self._know([len(self.hosts) - 1] * len(self.hosts), self.hosts)

    def _know(self, counts, hosts):
        until(lambda: all(host.node.knows() == count for count, host in zip(counts, hosts, strict=True)))

    def _listen(self, host, name, other):
        listening = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        host._links[name, other.number] = listening, listening.getsockname()[1]


def _pair(one, other):
    return "-".join(str(number) for number in sorted((one.number, other.number)))


class Relayed(_Network):
    """All hosts are this one; between two of them, all goes by a relay, which holds it where they are parted."""

    def _prepare(self):
        for host in self.hosts:
            for other in self.hosts:
                if other is not host:
                    self._listen(host, "cluster", other)
        # What nodes tell each other of where they are: nobody is there, so that all routes go by the relay.
        self._nobody = self._stack.enter_context(socket.socket())
        self._nobody.bind(("127.0.0.1", 0))

    def _start(self, host, place, extra="", cluster_extra=""):
        routes = [f"127.0.0.1:{host._links['cluster', other.number][1]}" for other in self.hosts if other is not host]
        nobody = self._nobody.getsockname()[1]
        more = f"no_advertise: true, advertise: 127.0.0.1:{nobody}\n{cluster_extra}"
        return _HostNode(host, place, extra, routes, cluster_extra=more)

    def _relay(self):
        links = []
        for host in self.hosts:
            for (name, number), (listening, _) in host._links.items():
                other = self.hosts[number]
                links.append([listening.fileno(), "127.0.0.1", other.node._ports[name], _pair(host, other)])
        self._relays = _Relay(links)
        self._stack.callback(self._relays.end)

    def _part(self, groups):
        self._relays.part(
            [_pair(one, other) for group, far in itertools.combinations(groups, 2) for one in group for other in far]
        )


class Namespaces(_Network):
    """Each host has a network of its own, and a wire to a switch: a bridge of Linux for each group."""

    _PROGRAMS = ("unshare", "nsenter", "ip")

    @classmethod
    def possible(cls):
        """Whether there may be such: one with a wire's end, and a switch, is made."""
        if not all(map(shutil.which, cls._PROGRAMS)):
            return False
        users = ["--user", "--map-root-user"] * cls._has_users()
        script = "ip link add wire type veth peer name eth0 && ip link add group0 type bridge"
        return subprocess.run(["unshare", *users, "--net", "sh", "-c", script], capture_output=True).returncode == 0

    @staticmethod
    def _has_users():
        """Anybody may, with users of one's own; or root, where there are no such."""
        tried = subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True, check=False)
        return tried.returncode == 0

    def _prepare(self):
        for program in self._PROGRAMS:
            if shutil.which(program) is None:
                pytest.skip(f"hosts of network namespaces need the program {program}")
        self._holders = {}
        self._users = self._has_users()
        self._switch = self._hold("unshare", *["--user", "--map-root-user"] * self._users, "--net")
        for host in self.hosts:
            self._holders[host] = self._hold(*self._inside(self._switch), "unshare", "--net")
            # Within the switch each end of a wire has the host's name.
            self._do(
                self._switch,
                f"ip link add {host.name} type veth peer name eth0 address {_mac(host)} "
                f"netns {self._holders[host].pid}",
            )
            # Neighbours are known for ever: that one is not there is not told by the lack of an answer to ARP.
            known = "\n".join(
                f"ip neigh add {_ip(other)} lladdr {_mac(other)} nud permanent dev eth0"
                for other in self.hosts
                if other is not host
            )
            self._do(
                self._holders[host],
                f"ip link set lo up\nip addr add {_ip(host)}/24 dev eth0\nip link set eth0 up\n{known}",
            )
        for number in range(len(self.hosts)):
            self._do(self._switch, f"ip link add group{number} type bridge\nip link set group{number} up")
        self._part([self.hosts])

    def _start(self, host, place, extra="", cluster_extra=""):
        routes = [f"{_ip(other)}:{_PORTS['cluster']}" for other in self.hosts if other is not host]
        return _HostNode(
            host,
            place,
            extra,
            routes,
            cluster_extra=f"no_advertise: true\n{cluster_extra}",
            listen=("0.0.0.0", _PORTS),
            prefix=self._inside(self._holders[host]),
        )

    def _relay(self):
        for host in self.hosts:
            links = [
                [listening.fileno(), _ip(self.hosts[number]), _PORTS[name], ""]
                for (name, number), (listening, _) in host._links.items()
            ]
            self._stack.callback(_Relay(links, self._inside(self._holders[host])).end)

    def _part(self, groups):
        self._do(
            self._switch,
            "\n".join(
                f"ip link set {host.name} master group{number} up"
                for number, group in enumerate(groups)
                for host in group
            ),
        )

    def _hold(self, *command):
        """A process that does nothing, in a new namespace; it ends with its input, so with this process, too."""
        process = subprocess.Popen(
            [*command, "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._stack.callback(process.communicate, timeout=PATIENCE)
        if process.stdout.read(1) != b"\n":
            pytest.skip(f"hosts of network namespaces: {' '.join(command[-3:])}: {process.stderr.read().decode()}")
        return process

    def _inside(self, holder):
        users = ["--user", "--preserve-credentials"] * self._users
        return ["nsenter", *users, "--net", "--target", str(holder.pid)]

    def _do(self, holder, script):
        command = [*self._inside(holder), "sh", "-ec", script]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            pytest.skip(f"hosts of network namespaces: {script.splitlines()[0]} ...: {done.stderr}")


def _ip(host):
    return ADDRESSES[host.number]


def _mac(host):
    return f"02:00:00:00:00:{host.number + 1:02x}"


KINDS = {"namespaces": Namespaces, "relays": Relayed}


def add_options(parser):
    """--networks: of which kinds the hosts are that tests part."""
    parser.addoption(
        "--networks",
        choices=["all", "one"],
        default="all",
        help="hosts of every kind; or of one: relays only where there may be no namespaces",
    )


def leave_out(config, items):
    """Leaves out tests of hosts of one kind, where those of the other one are enough."""
    if config.getoption("networks") == "all" or not (relayed := [item for item in items if _is_relayed(item)]):
        return
    if Namespaces.possible():
        config.hook.pytest_deselected(items=relayed)
        items[:] = [item for item in items if not _is_relayed(item)]


def _is_relayed(item):
    # Of others', some compare as arrays do.
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(isinstance(value, str) and value == "relays" for value in values)


@contextlib.contextmanager
def hosts(kind, directory, count=3, **options):
    """So many hosts of a kind; ``extra`` and ``cluster_extra`` are more of the configuration of their nodes."""
    with contextlib.ExitStack() as stack:
        yield KINDS[kind](directory, count, stack, **options)
