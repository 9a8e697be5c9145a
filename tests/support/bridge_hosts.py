"""Bridges in processes of their own, as on hosts of their own; ``python bridge_hosts.py NAME LEASE ADDRESS...`` is one.

The test that starts one tells it what to export, and what to connect to, by a capability.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import capmarshal as cm
from capmarshal import aio
from capmarshal._bridge.bridge import Bridge
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_link import clocks
from capmarshal._bridge_link.tokens import Token
from patience import PATIENCE, until

PROGRAM = __file__

# Seconds after which a node that stands still is left.
LIVENESS = 0.5

# Seconds, as it is for users.
LEASE = clocks.LEASE


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


class AsyncHost(cm.Interface):
    export = cm.awaitable(Host.export)
    export_again = cm.awaitable(Host.export_again)
    connect = cm.awaitable(Host.connect)
    listen = cm.awaitable(Host.listen)
    revoke = cm.awaitable(Host.revoke)
    counts = cm.awaitable(Host.counts)
    descriptors = cm.awaitable(Host.descriptors)


class _Registry(cm.Interface):
    @cm.method
    def put(self, host: Host) -> None: ...


class _AsyncRegistry(cm.Interface):
    @cm.method
    async def put(self, host: AsyncHost) -> None: ...


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


class _RegistryServer(_Registry):
    def __init__(self, put: cm.Signal) -> None:
        self.hosts: list[Host] = []
        self._put = put

    def put(self, host):
        self.hosts.append(host)
        self._put.send()


class Running:
    """A host that runs.

    Attributes:
        name: of its bridge.
        host: the bridge, to be told what to do.
        process: its own.
    """

    def __init__(self, name, start):
        self.name = name
        self._start = start
        self.host, self.process = start()

    def kill(self):
        """As a machine that loses its power."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def restart(self):
        """Another one of its name, after that."""
        self.host, self.process = self._start()

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

    def start(self, name, addresses, *, lease=LEASE):
        """A bridge that is connected to one of some nodes; between it and others leases are of so many seconds."""

        def start():
            command = [sys.executable, "-W", "error", PROGRAM, name, str(lease), *addresses]
            process = cm.spawn(command, parent=self._parent)
            self._stack.callback(_end, process)
            self._put.wait(PATIENCE)
            return self._registry.hosts.pop(), process

        return Running(name, start)


@contextlib.contextmanager
def starting():
    """What starts bridges one by one."""
    with contextlib.ExitStack() as stack:
        yield Starting(stack)


@contextlib.contextmanager
def hosts(nodes, *names, lease=LEASE):
    """A bridge of each name, connected to some nodes; ended with the block."""
    with starting() as made:
        yield [made.start(name, [node.address for node in nodes], lease=lease) for name in names]


def _end(process):
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait(PATIENCE)


async def _serve(name, lease, *addresses):
    clocks.LEASE = float(lease)
    engine = await NatsEngine.connect(addresses, liveness=LIVENESS, concurrency=1000)
    async with Bridge(name, engine) as bridge, aio.Entrypoint("host") as entrypoint:
        host = _HostServer(bridge)
        await cm.parent().cast(_AsyncRegistry).put(entrypoint.manage(host))
        await aio.wait_gone(cm.parent())


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
