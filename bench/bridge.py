"""A call of an object on another machine, and a dataspace, by two bridges, against nats-py alone and pycapnp.

All of it runs here, in processes of their own: a client, the near bridge, the node, the far bridge, the server.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import capmarshal as cm
from bench import loops, nats_by_hand, peers, servers
from bench.awaited import IN_FLIGHT, Way, awaiting, cost
from bench.contenders import look_at_bytes, pattern
from bench.figures import in_words
from bench.measuring import Goal, Report, Work, adding, against, benchmark, checked, not_installed, often
from bench.peers import calls
from bench.processes import Cores, line_of, running
from bench.servers import Works, handed_over

if TYPE_CHECKING:
    from capmarshal.bridge import Bridge

_BRIDGES, _ON_UVLOOP = "two bridges", "two bridges on uvloop"
_NATS, _FORWARDER, _DIRECT = "nats-py, request and reply", "one forwarder", "no bridge"
_TARGET = 1.5
# How many chunks are in flight: as many as of bridges; and as many as nats-py is quickest with.
_COPY, _WINDOWS, _TARGET_OF_COPY = "nats-py by hand, {} in flight", (4, 16), 2.0


async def exporting(address: str) -> None:
    """The far bridge: exports what it inherits, and prints the token."""
    async with _bridge("far", address) as bridge:
        print((await bridge.export(cm.parent())).reveal(), flush=True)
        await loops.await_end()


async def importing(address: str, token: str) -> None:
    """The near bridge: hands over what the token stands for."""
    from capmarshal.bridge import Token

    async with _bridge("near", address) as bridge:
        cm.send_capability(sys.stdin, await bridge.connect(Token.parse(token)))
        await loops.await_end()


@contextlib.asynccontextmanager
async def _bridge(role: str, address: str) -> AsyncIterator["Bridge"]:
    from capmarshal.bridge import Bridge, NatsEngine

    # There are several pairs of bridges, and each has a name of its own.
    engine = await NatsEngine.connect([address], concurrency=1000)
    async with Bridge(f"{role}-{os.getpid()}", engine) as bridge:
        yield bridge


def _called(capability: cm.Capability, processes: Mapping[str, int]) -> Way:
    """By capmarshal: blocking, or awaited where several are in flight."""
    works = capability.cast(Works)
    blocking, together = partial(often, adding(works.add)), awaiting(works, "asyncio")
    return Way(lambda times, in_flight: blocking(times) if in_flight == 1 else together(times, in_flight), processes)


def _bridged(at: Report, loop: str, server: cm.Capability, address: str) -> tuple[cm.Capability, dict[str, int]]:
    """The same by two bridges, and their processes: the near one is where the client is, the far one by the server."""
    far = at.enter(running(exporting, loop, address, cores=at.cores, parent=server))
    here = Cores(at.cores.client, at.cores.client)
    capability, near = at.enter(handed_over(importing, loop, address, line_of(far), cores=here))
    return capability, {"near bridge": near.pid, "far bridge": far.pid}


def _ways(at: Report, found: list[str]) -> dict[str, Way]:
    """All that there are, by their names."""
    # The node is on neither machine.
    address, node = at.enter(nats_by_hand.node(*set(at.cores)))
    server, process = at.enter(handed_over(servers.blocking, cores=at.cores))
    ending = {"server": process.pid}
    ways = {_DIRECT: _called(server, ending)}
    forwarder, process = at.enter(handed_over(servers.forwarder, "asyncio", cores=at.cores, parent=server))
    ways[_FORWARDER] = _called(forwarder, {"forwarder": process.pid, **ending})
    for shown, loop in {_BRIDGES: "asyncio", _ON_UVLOOP: "uvloop"}.items():
        if loop in ("asyncio", *found):
            capability, bridges = _bridged(at, loop, server, address)
            ways[shown] = _called(capability, {**bridges, "node": node, **ending})
    responder = at.enter(running(nats_by_hand.respond, "asyncio", address, 0, cores=at.cores))
    line_of(responder)
    client = at.enter(nats_by_hand.connected(address))
    ways[_NATS] = Way(client.add_often, {"node": node, "server": responder.pid})
    if "pycapnp" in found:
        port = int(line_of(at.enter(running(peers.serve, "pycapnp", "", cores=at.cores))))
        ways[f"{peers.shown('pycapnp')} by TCP"] = Way(at.enter(calls.capnproto("", port)).add_often, {})
    return ways


@benchmark("3 min", rounds=9)
def bridge(at: Report) -> Iterator[Work]:
    """A call of an object on another machine, and a dataspace, by two bridges, against nats-py alone and pycapnp."""
    times = at.loops(640, 20)
    needed = nats_by_hand.unavailable()
    found = at.can(needed | not_installed("uvloop", "pycapnp"))
    if any(needed.values()):
        return
    ways = _ways(at, found)
    for kind, in_flight in IN_FLIGHT.items():
        timed = {name: partial(way.add_often, times, in_flight) for name, way in ways.items()}
        yield at.work(kind, timed, against(_BRIDGES, timed, {_NATS: _TARGET}))
    for kind, in_flight in IN_FLIGHT.items():
        spent = {
            f"{name}, {part}": partial(cost, ways[name], part, times, in_flight)
            for name in (_BRIDGES, _NATS)
            for part in ("all", "client", *ways[name].processes)
        }
        yield at.work(f"processor time, {kind}", spent, [Goal(f"{_BRIDGES}, all", f"{_NATS}, all", _TARGET)])
    yield _copying(at, at.either(100 << 20, 3 << 20))


def _copying(at: Report, size: int) -> Work:
    """A dataspace, by bridges that nobody else calls, and by nats-py."""
    address, _ = at.enter(nats_by_hand.node(*set(at.cores)))
    server, _ = at.enter(handed_over(servers.blocking, cores=at.cores))
    capability, _ = _bridged(at, "asyncio", server, address)
    line_of(at.enter(running(nats_by_hand.respond, "asyncio", address, size, cores=at.cores)))
    data = at.enter(cm.Dataspace.from_buffer(pattern(size)))
    works = capability.cast(Works)
    take = checked(works.take_dataspace, (data,), look_at_bytes(pattern(size)))
    timed = {_BRIDGES: partial(often, take, 1, partial(works.use, "settle"))}
    for window in _WINDOWS:
        timed[_COPY.format(window)] = partial(loops.run, "asyncio", nats_by_hand.copy, address, size, window)
    targets = {_COPY.format(_WINDOWS[0]): _TARGET_OF_COPY}
    return at.work(f"{in_words(size, 'byte')} of a dataspace", timed, against(_BRIDGES, timed, targets))
