"""Nodes of NATS as docs/bridge_nodes.md says to run them: with TLS, and with users that have only what a bridge needs.

The configuration is that of the page, with the files and ports of the test, and with users of the test's choice.
"""

from __future__ import annotations

import contextlib
import re

import documents
import hosts
import nats_accounts
import nats_servers
from capmarshal._bridge_engine.login import Login
from capmarshal._bridge_engine.tls import Tls
from certificates import Authority
from spy import Spy

PAGE = "docs/bridge_nodes.md"

# One user of the page's, and which it is.
_USER = re.compile(r"^ +\{\n +# (?P<name>\w+)\n +nkey: \"(?P<key>U\w+)\"\n(?:.*\n)*?(?=^ +\{| +\]\n)", re.MULTILINE)
# What no bridge has: a user who hears and sends all, and one whom nobody has given anything.
_SPIES = '      { user: "spy", password: "everything", permissions { subscribe: ">", publish: ">" } }\n' + (
    '      { user: "nobody", password: "nothing" }\n'
)


def shown(name):
    """The file of that name that the page shows."""
    [text] = [text for text in documents.fenced(documents.read(PAGE), "text") if text.startswith(f"# {name}\n")]
    return text


def block(text, name):
    """What stands within the first block of a name in a configuration."""
    begin = re.search(rf"^{name} \{{$\n", text, re.MULTILINE).end()
    return text[begin : re.compile(r"^\}", re.MULTILINE).search(text, begin).start()]


def users_file(keys, responses=False):
    """The page's users.conf with other bridges: their public keys, by their names; and with spies.

    With ``responses``, the page's other permission for answers stands in the place of the usual one.
    """
    text = shown("users.conf")
    if responses:
        stricter = shown("answers.conf").splitlines()[1]
        text = re.sub(r'^( +)(publish: \["cm.*), "_INBOX.*"\]', rf"\1\2]\n\1{stricter}", text, flags=re.MULTILINE)
    [first, *_] = shown_users = list(_USER.finditer(text))
    made = [first[0].replace(first["name"], name).replace(first["key"], key) for name, key in keys.items()]
    return text[: first.start()] + "".join(made) + _SPIES + text[shown_users[-1].end() :]


class Secured:
    """Nodes, and the files of those who use them.

    Attributes:
        nodes: of one cluster.
        authority: who issued their certificates.
    """

    def __init__(self, nodes, authority, seeds):
        self.nodes, self.authority, self._seeds = nodes, authority, seeds

    @property
    def addresses(self):
        """Of all nodes."""
        return [node.address for node in self.nodes]

    @property
    def ca(self):
        """The path of the authority's certificate."""
        return self.authority.path

    def seed(self, bridge):
        """The path of a bridge's seed file."""
        return self._seeds[bridge]

    def without(self, bridge):
        """Has the nodes let a bridge in no more."""
        users = self.authority.path.with_name("users.conf")
        [one] = [found[0] for found in _USER.finditer(users.read_text()) if found["name"] == bridge]
        users.write_text(users.read_text().replace(one, ""))
        for node in self.nodes:
            node.reload()

    def login(self, bridge):
        """That of a bridge."""
        return Login(credentials=self.seed(bridge), tls=Tls(ca=self.ca), name=bridge)

    def inbox(self, bridge):
        """What it may be answered at."""
        return f"_INBOX.{bridge}"

    def spy(self, subject=">", *, node=0, user="spy", password="everything"):
        """Who has all rights, at a node; ``user="nobody", password="nothing"`` has none."""
        return Spy(self.nodes[node].address, subject, user=user, password=password, tls=self.authority.context())


class _Files:
    """What is made for nodes before they are."""

    def __init__(self, directory, bridges, responses=False):
        self._place = directory / "secured"
        self._place.mkdir()
        self.authority = Authority(self._place)
        # Of all of them: in the networks of tests they have the same names.
        self.authority.issue("node1", "127.0.0.1", *hosts.ADDRESSES)
        self.seeds, keys = {}, {}
        for bridge in bridges:
            key = nats_accounts.Key(nats_accounts.USER)
            keys[bridge] = key.public
            self.seeds[bridge] = self._place / f"{bridge}.nk"
            self.seeds[bridge].write_text(f"{key.seed()}\n")
            self.seeds[bridge].chmod(0o600)
        (self._place / "users.conf").write_text(users_file(keys, responses))

    def options(self):
        """Of nodes: all of the page's node.conf but where they listen, and how they find each other."""
        text = shown("node.conf").replace("/etc/nats/", f"{self._place}/").replace("ca.pem", self.authority.path.name)
        text = text.replace('include "users.conf"', 'include "../secured/users.conf"')
        cluster = block(text, "cluster")
        extra = text.replace(cluster, "").replace("cluster {\n}\n", "")
        extra = re.sub(r"^(?:server_name|listen|client_advertise|http|ping_\w+):.*\n", "", extra, flags=re.MULTILINE)
        cluster = re.sub(r"^ *(?:name|listen):.*\n| *routes: \[[^]]*\]\n", "", cluster, flags=re.MULTILINE)
        return {"extra": extra, "cluster_extra": cluster}


@contextlib.contextmanager
def secured_hosts(kind, directory, bridges=("render1", "web1"), count=3):
    """(the same, what parts them): a node on each of so many hosts."""
    files = _Files(directory, bridges)
    with hosts.hosts(kind, directory, count, **files.options()) as network:
        yield Secured([host.node for host in network.hosts], files.authority, files.seeds), network


@contextlib.contextmanager
def secured(directory, bridges=("render1", "web1"), count=3, responses=False):
    """So many nodes, for bridges of these names."""
    files = _Files(directory, bridges, responses)
    with nats_servers.nodes(directory, count, **files.options()) as nodes:
        yield Secured(nodes, files.authority, files.seeds)
