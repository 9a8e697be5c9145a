"""A typed call, and one that passes a descriptor, against what others offer for calls between processes."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import metadata
from typing import NamedTuple, TypeAlias

import capmarshal as cm
from bench import contenders
from bench.charts import bar_chart
from bench.loops import Client
from bench.measuring import Report, Work, adding, against, benchmark, checked, not_installed, often
from bench.peers import calls, dbus
from bench.processes import Cores, await_end, listening
from bench.servers import Works, by_hand, served

ByHandPeer: TypeAlias = contenders.Tagged | contenders.ConnectionObjects
_CAPMARSHAL = "capmarshal"
# The most that capmarshal may be a multiple of: those that are pure Python, and the others.
_PURE, _COMPILED = 0.5, 1.0


class Peer(NamedTuple):
    """A peer."""

    # How its server serves, and how a client connects, both at a path; or what is written by hand, which a thread of
    # capmarshal's server process serves.
    way: tuple[Callable[[str], None], Callable[[str], AbstractContextManager[Client]]] | type[ByHandPeer]
    target: float  # the most that a call of capmarshal's may be a multiple of
    package: str = ""  # as it is installed, where it is not Python's own
    cannot: str = ""  # why it passes no descriptors, if it does not
    needs: str = ""  # a program

    def unavailable(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        if self.package and (why := not_installed(self.package)[self.package]):
            return why
        return f"{self.needs} is not on the PATH" if self.needs and shutil.which(self.needs) is None else ""


_BY_REFERENCE = (
    "rpyc sends values and references to Python objects: a descriptor's number means nothing to the other process"
)
_SERIALIZED = "Pyro5 serializes arguments to bytes on a stream; its sockets do not send descriptors"
_FRAMES = "ZeroMQ sends frames of bytes; its ipc transport has no place for descriptors"
_TRANSPORTS = "Cap'n Proto can in C++, but pycapnp's streams are asyncio transports, which carry bytes only"
_HTTP = "gRPC sends messages of bytes over HTTP/2; there is no place for descriptors"
# By name, as its authors write it: by hand, then the standard library, then what others made.
PEERS = {
    "sendmsg + msgspec by hand": Peer(contenders.Tagged, 0.95),
    "multiprocessing.Connection": Peer(contenders.ConnectionObjects, _PURE),
    "multiprocessing managers": Peer((calls.serve_managers, calls.managers), _PURE),
    "rpyc": Peer((calls.serve_rpyc, calls.rpyc), _PURE, "rpyc", _BY_REFERENCE),
    "Pyro5": Peer((calls.serve_pyro, calls.pyro), _PURE, "Pyro5", _SERIALIZED),
    "pyzmq": Peer((calls.serve_zeromq, calls.zeromq), _COMPILED, "pyzmq", _FRAMES),
    # The bus, messages and marshalling are compiled by Cython; the proxy is Python.
    "dbus-fast": Peer((dbus.serve_dbus_fast, dbus.dbus_fast), _COMPILED, "dbus-fast", needs="dbus-daemon"),
    "jeepney": Peer((dbus.serve_jeepney, dbus.jeepney), _PURE, "jeepney", needs="dbus-daemon"),
    # Encoding and the protocol are C++ and Cython; the transport is asyncio's.
    "pycapnp": Peer((calls.serve_capnproto, calls.capnproto), _COMPILED, "pycapnp", _TRANSPORTS),
    # HTTP/2 and the transport are C++, driven by Cython from asyncio.
    "grpcio": Peer((calls.serve_grpc, calls.grpc), _COMPILED, "grpcio", _HTTP),
}


def shown(name: str) -> str:
    """A peer with its version."""
    package = PEERS[name].package
    return f"{name} {metadata.version(package)}" if package else name


def serve(name: str, path: str) -> None:
    """In the server's process: serves at a path."""
    way = PEERS[name].way
    if not isinstance(way, type):
        threading.Thread(target=way[0], args=[path], daemon=True).start()
    await_end()
    # Whatever the thread does then.
    os._exit(0)


@contextmanager
def connected(name: str, works: Works, cores: Cores) -> Iterator[Client]:
    """A client of a peer, whose server runs on its core."""
    way = PEERS[name].way
    if isinstance(way, type):
        with by_hand(works, way) as own:
            yield Client(own.add, own.inode)
    else:
        with listening(cores, serve, name) as path, way[1](path) as client:
            yield client


@benchmark("40 s", rounds=11)
def peers(at: Report) -> Iterator[Work]:
    """A typed call, and one that passes a descriptor, against what others offer for calls between processes."""
    times = at.loops(1000, 10)
    present = {shown(name): name for name in at.can({name: peer.unavailable() for name, peer in PEERS.items()})}
    works = at.enter(served(at.cores))
    file = at.enter(cm.Descriptor(os.memfd_create("bench", os.MFD_CLOEXEC)))
    inode = checked(works.inode, (file,), os.fstat(file.fileno()).st_ino)
    adds = {_CAPMARSHAL: partial(often, adding(works.add), times)}
    passes = {_CAPMARSHAL: partial(often, inode, times, partial(works.use, "settle"))}
    cannot = {}
    for each, name in present.items():
        client = at.enter(connected(name, works, at.cores))
        adds[each] = partial(client.add_often, times)
        if why := PEERS[name].cannot:
            cannot[each] = f"cannot: {why}"
        else:
            passes[each] = partial(client.pass_often, file.fileno(), times)
    targets = {each: PEERS[name].target for each, name in present.items()}
    yield at.work("add(int, int)", adds, against(_CAPMARSHAL, adds, targets))
    yield at.work("a descriptor, answered with its inode", passes, against(_CAPMARSHAL, passes, {}), cannot=cannot)
    at.pictures["peers.svg"] = bar_chart("Calls between two processes", at.works)
