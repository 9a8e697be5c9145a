"""Bridges in processes of their own, as on hosts of their own; ``bridge_hosts.py NAME LEASE HELD ADDRESS...`` is one.

The test that starts one tells it what to export, and what to connect to, by a capability.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path

import capmarshal as cm
from capmarshal import aio
from capmarshal._bridge import imports
from capmarshal._bridge.bridge import Bridge
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_link import clocks
from capmarshal._bridge_link.tokens import Token
from patience import PATIENCE, until

PROGRAM = __file__

# Seconds after which a node that stands still is left.
LIVENESS = 0.5

# Seconds, as they are for users: of a lease; and for which a bridge has what was mentioned, and nobody holds.
LEASE = clocks.LEASE
HELD_FOR = imports.HELD_FOR


class Host(cm.Interface):
    """A bridge, as the test that has started it sees it; tokens are text."""

    @cm.method
    def export(self, what: cm.Capability) -> str: ...

    @cm.method
    def export_again(self, what: cm.Capability, token: str) -> None: ...

    @cm.method
    @cm.raises(cm.Disconnected)
    def connect(self, token: str) -> cm.Capability: ...

    @cm.method
    def listen(self, path: str, token: str) -> None: ...

    @cm.method
    def revoke(self, token: str, reason: str) -> None: ...

    @cm.method
    def counts(self) -> dict[str, dict[str, int]]: ...

    @cm.method
    def descriptors(self) -> int: ...

    @cm.method
    def collect_nothing(self) -> None: ...


class AsyncHost(cm.Interface):
    export = cm.awaitable(Host.export)
    export_again = cm.awaitable(Host.export_again)
    connect = cm.awaitable(Host.connect)
    listen = cm.awaitable(Host.listen)
    revoke = cm.awaitable(Host.revoke)
    counts = cm.awaitable(Host.counts)
    descriptors = cm.awaitable(Host.descriptors)
    collect_nothing = cm.awaitable(Host.collect_nothing)


class _Registry(cm.Interface):
    @cm.method
    def put(self, name: str, host: Host) -> None: ...


class _AsyncRegistry(cm.Interface):
    @cm.method
    async def put(self, name: str, host: AsyncHost) -> None: ...


class _HostServer(AsyncHost):
    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    async def export(self, what):
        return (await self._bridge.export(what)).reveal()

    async def export_again(self, what, token):
        await self._bridge.export(what, token=Token.parse(token))

    async def connect(self, token):
        return await self._bridge.connect(Token.parse(token))

    async def listen(self, path, token):
        self._bridge.listen(path, Token.parse(token))

    async def revoke(self, token, reason):
        await self._bridge.revoke(Token.parse(token), reason)

    async def counts(self):
        return self._bridge.counts

    async def descriptors(self):
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one descriptor less

    async def collect_nothing(self):
        gc.disable()


class _RegistryServer(_Registry):
    def __init__(self, put: cm.Signal) -> None:
        self.hosts: dict[str, Host] = {}
        self._put = put

    def put(self, name, host):
        self.hosts[name] = host
        self._put.send()


class Running:
    """A host that runs.

    Attributes:
        name: of its bridge.
        host: the bridge, to be told what to do.
        process: its own.
    """

    def __init__(self, name, spawn, wait):
        """Begun: another one may be, before this one has been waited for."""
        self.name = name
        self._spawn, self._wait = spawn, wait
        self.process = spawn()

    def wait(self):
        """Returns when it is there."""
        self.host = self._wait()

    def kill(self):
        """As a machine that loses its power."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def restart(self):
        """Another one of its name, after that."""
        self.process = self._spawn()
        self.wait()

    def stop(self):
        """It stands still, with its connections open; returns when it does."""
        self.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.process.pid}/stat")
        until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")

    def go_on(self):
        """After that."""
        self.process.send_signal(signal.SIGCONT)

    def idle(self):
        """Returns when nobody has anything of this one's, nor this one of anybody's."""
        until(lambda: not any(any(each.values()) for each in self.host.counts().values()))

    def alone(self):
        """Returns when it has lost all others."""
        until(lambda: not self.host.counts())


class Starting:
    """What starts bridges, and ends them with its block."""

    def __init__(self, stack):
        self._stack = stack
        self._put = stack.enter_context(cm.SignalReceiver())
        self._registry = _RegistryServer(self._put.signal)
        entrypoint = stack.enter_context(cm.Entrypoint("registry"))
        self._parent = entrypoint.manage(self._registry)

    def start(self, addresses, *, lease=LEASE, held_for=HELD_FOR):
        """Bridges, beside each other.

        Args:
            addresses: by the name of each: the nodes, to one of which it is connected.
            lease: seconds that one between it and others lasts.
            held_for: seconds for which it has what was mentioned, and nobody holds.
        """

        def spawn(name):
            command = [sys.executable, "-W", "error", PROGRAM, name, str(lease), str(held_for), *addresses[name]]
            process = cm.spawn(command, parent=self._parent)
            self._stack.callback(_end, process)
            return process

        def wait(name):
            while name not in self._registry.hosts:
                self._put.wait(PATIENCE)
            return self._registry.hosts.pop(name)

        begun = [Running(name, partial(spawn, name), partial(wait, name)) for name in addresses]
        for running in begun:
            running.wait()
        return begun


@contextlib.contextmanager
def starting():
    """What starts bridges."""
    with contextlib.ExitStack() as stack:
        yield Starting(stack)


@contextlib.contextmanager
def hosts(nodes, *names, **options):
    """A bridge of each name, connected to some nodes; ended with the block; options as of :meth:`Starting.start`."""
    addresses = [node.address for node in nodes]
    with starting() as made:
        yield made.start(dict.fromkeys(names, addresses), **options)


def _end(process):
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait(PATIENCE)


async def _serve(name, lease, held_for, *addresses):
    clocks.LEASE, imports.HELD_FOR = float(lease), float(held_for)
    engine = await NatsEngine.connect(addresses, liveness=LIVENESS, concurrency=1000)
    async with Bridge(name, engine) as bridge, aio.Entrypoint("host") as entrypoint:
        host = _HostServer(bridge)
        await cm.parent().cast(_AsyncRegistry).put(name, entrypoint.manage(host))
        await aio.wait_gone(cm.parent())


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
