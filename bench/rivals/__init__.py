"""The peers that capmarshal is compared with, each used as its own documentation recommends.

One module a peer, all doing the same work: ``add(a, b)``, and where the peer can a descriptor, from one process to a
server in another over a local transport.  Each has serve(directory), for the server's process, and connect(directory),
for the client's: the server listens there.  ``python -m bench.rivals NAME DIRECTORY`` runs a server.
"""

import importlib
import importlib.util
import shutil
from importlib import metadata
from types import ModuleType
from typing import NamedTuple

from bench.rivals.client import Client, await_listener

# The most that capmarshal may be a multiple of: those that are pure Python, and the others.
_PURE, _COMPILED = 0.5, 1.0


class Rival(NamedTuple):
    """A peer.

    Attributes:
        name: as its authors write it.
        target: the most that a call of capmarshal's may be a multiple of.
        package: as it is installed; empty where it is Python's own.
        module: as it is imported.
        cannot: why it passes no descriptors; empty if it does.
        needs: a program.
    """

    name: str
    target: float
    package: str = ""
    module: str = ""
    cannot: str = ""
    needs: str = ""

    @property
    def shown(self) -> str:
        """Name and version."""
        return f"{self.name} {metadata.version(self.package)}" if self.package else self.name

    def unavailable(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return f"{self.module} is not installed"
        if self.needs and shutil.which(self.needs) is None:
            return f"{self.needs} is not on the PATH"
        return ""


# By module, in the order in which they are listed: by hand, then the standard library, then what others made.
RIVALS = {
    "by_hand": Rival("sendmsg + msgspec by hand", 0.95),
    "connection": Rival("multiprocessing.Connection", _PURE),
    "managers": Rival("multiprocessing managers", _PURE),
    "rpyc_unix": Rival(
        "rpyc",
        _PURE,
        "rpyc",
        "rpyc",
        "rpyc sends values and references to Python objects: a descriptor's number means nothing to the other process",
    ),
    "pyro": Rival(
        "Pyro5",
        _PURE,
        "Pyro5",
        "Pyro5",
        "Pyro5 serializes arguments to bytes on a stream; its sockets do not send descriptors",
    ),
    "zeromq": Rival(
        "pyzmq",
        _COMPILED,
        "pyzmq",
        "zmq",
        "ZeroMQ sends frames of bytes; its ipc transport has no place for descriptors",
    ),
    # The bus, messages and marshalling are compiled by Cython; the proxy is Python.
    "dbus": Rival("dbus-fast", _COMPILED, "dbus-fast", "dbus_fast", needs="dbus-daemon"),
    "jeepney_blocking": Rival("jeepney", _PURE, "jeepney", "jeepney", needs="dbus-daemon"),
    # Encoding and the protocol are C++ and Cython; the transport is asyncio's.
    "capnproto": Rival(
        "pycapnp",
        _COMPILED,
        "pycapnp",
        "capnp",
        "Cap'n Proto can in C++, but pycapnp's streams are asyncio transports, which carry bytes only",
    ),
}


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def serve(name: str, directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    _load(name).serve(directory)


def connect(name: str, directory: str) -> Client:
    """A client of a peer, once its server listens."""
    await_listener(directory)
    client: Client = _load(name).connect(directory)
    return client
