"""A call of an object on another machine, and a dataspace, by two bridges, against nats-py alone and pycapnp.

All of it runs here, in processes of their own: a client, the near bridge, the node, the far bridge, the server.
``python -m bench.bridge far LOOP ADDRESS`` is a bridge that exports what it inherits, and prints the token; ``python -m
bench.bridge near LOOP ADDRESS TOKEN`` one that hands over what that stands for; ``python -m bench.bridge forwarder
LOOP`` hands over an object that passes calls on to what it inherits, which is the least that a bridge does.
"""

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import capmarshal as cm
from bench import copies, loops, node, peers, requests
from bench.awaited import AwaitedWorks
from bench.measuring import Goal, Report, Work, adding, often, warm_up
from bench.peers import calls
from bench.peers.client import Client
from bench.processes import Cores, line_of, places, run_on, running
from bench.server import Works, handed_over
from capmarshal import aio

TAKES, ROUNDS = "3 min", 9
# A tenth of them warm up: as many as are ever in flight.
_CALLS, _QUICK_CALLS = 640, 20
_IN_FLIGHT = {"one call": 1, "64 in flight": 64}

_BRIDGES, _ON_UVLOOP = "two bridges", "two bridges on uvloop"
_NATS, _FORWARDER, _DIRECT = "nats-py, request and reply", "one forwarder", "no bridge"
_TARGET = 1.5

# Of a process's clocks, the one of its threads' time on processors: include/linux/posix-timers_types.h.
_CPUCLOCK_SCHED = 2


class _Way(NamedTuple):
    """One way to call, and the processes that a call goes through, the client's excepted."""

    add_often: Callable[[int, int], float]  # seconds of one call of so many, with so many in flight
    processes: Mapping[str, int]  # by what each is


def _spent(process: int) -> float:
    """Seconds of processor time that a process has used, in the kernel too."""
    return time.clock_gettime((~process << 3) | _CPUCLOCK_SCHED)


def _cost(way: _Way, part: str, times: int, in_flight: int) -> float:
    """Seconds of processor time for one call: of one of its processes, or of all of them."""
    everybody = {"client": os.getpid(), **way.processes}
    found = everybody.values() if part == "all" else [everybody[part]]
    before = sum(map(_spent, found))
    way.add_often(times, in_flight)
    return (sum(map(_spent, found)) - before) / (warm_up(times) + times)


async def _await(works: Works, times: int, in_flight: int) -> float:
    return await loops.often(cm.capability(works).cast(AwaitedWorks).add, (1, 2), 3, times, in_flight)


def _called(capability: cm.Capability, processes: Mapping[str, int]) -> _Way:
    """By capmarshal: blocking, or awaited where several are in flight."""
    works = capability.cast(Works)

    def add_often(times: int, in_flight: int) -> float:
        if in_flight == 1:
            return often(adding(works.add), times)
        return loops.run("asyncio", _await, works, times, in_flight)

    return _Way(add_often, processes)


@contextlib.contextmanager
def _bridged(
    loop: str, cores: Cores, server: cm.Capability, address: str
) -> Iterator[tuple[cm.Capability, dict[str, int]]]:
    """The same by two bridges, and their processes: the near one is where the client is, the far one by the server."""
    run_on(cores.server)
    with running("bridge", "far", loop, address, parent=server) as far:
        token = line_of(far)
        here = Cores(cores.client, cores.client)
        with handed_over(here, "near", loop, address, token, module="bridge") as (capability, near):
            yield capability, {"near bridge": near.pid, "far bridge": far.pid}


@contextlib.contextmanager
def _capnp(cores: Cores) -> Iterator[Client]:
    """By TCP."""
    run_on(cores.server)
    with running("peers", "pycapnp", "") as server:
        port = int(line_of(server))
        run_on(cores.client)
        with calls.capnproto("", port) as client:
            yield client


def _ways(stack: contextlib.ExitStack, cores: Cores, unavailable: Mapping[str, str]) -> dict[str, _Way]:
    """All that there are, by their names."""
    # The node is on neither machine.
    address, node_process = stack.enter_context(node.running(*set(cores)))
    server, server_process = stack.enter_context(handed_over(cores))
    ways = {_DIRECT: _called(server, {"server": server_process.pid})}
    forwarder, process = stack.enter_context(handed_over(cores, "forwarder", "asyncio", module="bridge", parent=server))
    ways[_FORWARDER] = _called(forwarder, {"forwarder": process.pid, "server": server_process.pid})
    for shown, loop in ((_BRIDGES, "asyncio"), (_ON_UVLOOP, "uvloop")):
        if not unavailable.get(loop):
            capability, bridges = stack.enter_context(_bridged(loop, cores, server, address))
            ways[shown] = _called(capability, {**bridges, "node": node_process, "server": server_process.pid})
    client, responder = stack.enter_context(requests.connected(address, cores))
    ways[_NATS] = _Way(client.add_often, {"node": node_process, "server": responder})
    if not unavailable["pycapnp"]:
        ways[f"pycapnp{peers.PEERS['pycapnp'].version()} by TCP"] = _Way(
            stack.enter_context(_capnp(cores)).add_often, {}
        )
    return ways


def _missing() -> dict[str, str]:
    """By what is needed here, why it is not to be had."""
    modules = {"nats": "nats-py", "cryptography": "cryptography"}
    missing = {
        package: "" if importlib.util.find_spec(module) else f"{package} is not installed"
        for module, package in modules.items()
    }
    return missing | {"nats-server": "" if node.find() else "nats-server is neither installed nor on the PATH"}


def run(report: Report) -> Iterator[Work]:
    times = report.loops(_CALLS, _QUICK_CALLS)
    needed = _missing()
    unavailable = {"uvloop": loops.unavailable()["uvloop"], "pycapnp": peers.PEERS["pycapnp"].unavailable()}
    report.notes += [f"{name}: {why}" for name, why in (needed | unavailable).items() if why]
    if any(needed.values()):
        return
    for cores in places():
        with contextlib.ExitStack() as stack:
            ways = _ways(stack, cores, unavailable)
            for kind, in_flight in _IN_FLIGHT.items():
                timed = {name: partial(way.add_often, times, in_flight) for name, way in ways.items()}
                goals = [Goal(_BRIDGES, name, _TARGET if name == _NATS else None) for name in timed if name != _BRIDGES]
                yield Work(cores.named(kind), cores, timed, goals)
            for kind, in_flight in _IN_FLIGHT.items():
                spent = {
                    f"{name}, {part}": partial(_cost, ways[name], part, times, in_flight)
                    for name in (_BRIDGES, _NATS)
                    for part in ("all", "client", *ways[name].processes)
                }
                yield Work(
                    cores.named(f"processor time, {kind}"),
                    cores,
                    spent,
                    [Goal(f"{_BRIDGES}, all", f"{_NATS}, all", _TARGET)],
                )
        with contextlib.ExitStack() as stack:
            yield _copying(stack, cores, copies.QUICK_SIZE if report.quick else copies.SIZE)


def _copying(stack: contextlib.ExitStack, cores: Cores, size: int) -> Work:
    """A dataspace, by bridges that nobody else calls."""
    address, _ = stack.enter_context(node.running(*set(cores)))
    server, _ = stack.enter_context(handed_over(cores))
    capability, _ = stack.enter_context(_bridged("asyncio", cores, server, address))
    return copies.work(stack, cores, address, _BRIDGES, capability.cast(Works), size)


class _Passing(cm.Forwarder):
    async def forward(self, call: cm.UntypedCall) -> cm.UntypedResult:
        return await aio.forward(call, to=cm.parent())


async def _forward() -> None:
    async with aio.Entrypoint("forwarder") as entrypoint:
        cm.send_capability(sys.stdin, entrypoint.manage(_Passing()))
        await loops.await_end()


async def _bridge(role: str, address: str, *token: str) -> None:
    from capmarshal.bridge import Bridge, NatsEngine, Token

    # There are several pairs of bridges, and each has a name of its own.
    engine = await NatsEngine.connect([address], concurrency=1000)
    async with Bridge(f"{role}-{os.getpid()}", engine) as bridge:
        if token:
            cm.send_capability(sys.stdin, await bridge.connect(Token.parse(*token)))
        else:
            print((await bridge.export(cm.parent())).reveal(), flush=True)
        await loops.await_end()


def _main(role: str, loop: str, *arguments: str) -> None:
    if role == "forwarder":
        loops.run(loop, _forward)
    else:
        loops.run(loop, partial(_bridge, role, *arguments))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _main(*sys.argv[1:])
