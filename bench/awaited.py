"""One call, and 64 in flight, on asyncio, uvloop and trio, against others; and what a call costs the server.

``python -m bench.awaited LOOP`` is capmarshal's server on a loop of that name.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import capmarshal as cm
from bench import loops, peers, streams, usage
from bench.measuring import Goal, Report, Work, adding, against, often, warm_up
from bench.processes import Cores, listening, places
from bench.server import Works, served
from capmarshal import aio

TAKES, ROUNDS = "90 s", 9
# A tenth of them warm up: as many as are ever in flight, so that each finds its channel there.
_CALLS, _QUICK_CALLS = 640, 100
_IN_FLIGHT = {"one call": 1, "64 in flight": 64}

_AWAITED, _BLOCKING, _THREAD = "capmarshal, awaited", "capmarshal, blocking call", "a thread"
_LOCKED = "anyio streams + msgspec by hand"
# How each sends.
_BY_HAND = {_LOCKED: "locked", "by hand, what is sent gathered": "gathered"}
_TARGETS = {"asyncio": 0.5, "uvloop": 1.3, "trio": 1.3}
# Those of the peers that are awaited where they are called, by asyncio.
_PEERS, _TARGET_OF_PEERS = ("grpcio", "pycapnp"), 0.5


class AwaitedWorks(cm.Interface):
    """What of :class:`Works` is awaited here."""

    add = cm.awaitable(Works.add)
    use = cm.awaitable(Works.use)


class _Works(AwaitedWorks):
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def use(self, what: str) -> int:
        result: int = getattr(usage, what)()
        return result


async def _await(works: Works, times: int, in_flight: int) -> float:
    return await loops.often(cm.capability(works).cast(AwaitedWorks).add, (1, 2), 3, times, in_flight)


async def _await_by_hand(path: str, sender: str, times: int, in_flight: int) -> float:
    async with streams.connected(path, sender) as client:
        return await loops.often(client.add, (1, 2), 3, times, in_flight)


def _cost(works: Works, times: int, in_flight: int) -> float:
    """Seconds of the server's processor time for one call."""
    before = works.use("processor")
    loops.run("asyncio", _await, works, times, in_flight)
    return (works.use("processor") - before) / (warm_up(times) + times) / 1e9


def _works(cores: Cores, found: list[str], others: Mapping[str, str], times: int) -> Iterator[Work]:
    """Those of each loop, then those of the servers; the others are peers, by what they are shown as."""
    with contextlib.ExitStack() as stack:
        blocking = stack.enter_context(served(cores))
        servers = {loop: stack.enter_context(served(cores, loop, module="awaited")) for loop in found}
        paths = {
            (loop, sender): stack.enter_context(listening(cores, "streams", loop, sender))
            for loop in found
            for sender in _BY_HAND.values()
        }
        clients = {shown: stack.enter_context(peers.connected(name, blocking, cores)) for shown, name in others.items()}
        for loop in found:
            targets = {_LOCKED: _TARGETS[loop]} | dict.fromkeys(others, _TARGET_OF_PEERS)
            for kind, in_flight in _IN_FLIGHT.items():
                timed: dict[str, Callable[[], float]] = {
                    _AWAITED: partial(loops.run, loop, _await, servers[loop], times, in_flight),
                    _BLOCKING: partial(often, adding(blocking.add), times),
                }
                timed |= {
                    shown: partial(loops.run, loop, _await_by_hand, paths[loop, sender], sender, times, in_flight)
                    for shown, sender in _BY_HAND.items()
                }
                if loop == "asyncio":
                    timed |= {shown: partial(client.add_often, times, in_flight) for shown, client in clients.items()}
                yield Work(cores.named(f"{loop}, {kind}"), cores, timed, against(_AWAITED, timed, targets))
        for kind, in_flight in _IN_FLIGHT.items():
            spent = {
                where: partial(_cost, works, times, in_flight)
                for where, works in {_THREAD: blocking, **servers}.items()
            }
            goals = [Goal(loop, _THREAD) for loop in found]
            yield Work(cores.named(f"processor time of the server, {kind}"), cores, spent, goals)


def run(report: Report) -> Iterator[Work]:
    times = report.loops(_CALLS, _QUICK_CALLS)
    missing = loops.unavailable() | {name: peers.PEERS[name].unavailable() for name in _PEERS}
    report.notes += [f"{name}: {why}" for name, why in missing.items() if why]
    found = [loop for loop in loops.unavailable() if not missing[loop]]
    others = {name + peers.PEERS[name].version(): name for name in _PEERS if not missing[name]}
    for cores in places():
        yield from _works(cores, found, others, times)


async def _main() -> None:
    async with aio.Entrypoint("works") as entrypoint:
        cm.send_capability(sys.stdin, entrypoint.manage(_Works()))
        await loops.await_end()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        loops.run(sys.argv[1], _main)
