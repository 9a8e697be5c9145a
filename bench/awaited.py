"""Calls that are awaited, and streams of items, in event loops: against those that block, and what others have."""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

import capmarshal as cm
from bench import loops, measuring, peers, servers, streams
from bench.measuring import Goal, Report, Work, adding, against, benchmark, not_installed, often, warm_up
from bench.processes import Process, listening, running
from bench.servers import AwaitedWorks, Works, handed_over, served

# Of a process's clocks, the one of its threads' time on processors: include/linux/posix-timers_types.h.
_CPUCLOCK_SCHED = 2
# A tenth of the calls warm up: as many as are ever in flight, so that each finds its channel there.
IN_FLIGHT = {"one call": 1, "64 in flight": 64}

_CAPMARSHAL, _BLOCKING, _THREAD = "capmarshal, awaited", "capmarshal, blocking call", "a thread"
_LOCKED = "anyio streams + msgspec by hand"
# How each sends.
_BY_HAND = {_LOCKED: "locked", "by hand, what is sent gathered": "gathered"}
_TARGETS = {"asyncio": 0.5, "uvloop": 1.3, "trio": 1.3}
# Those of the peers that are awaited where they are called, by asyncio.
_PEERS, _TARGET_OF_PEERS = ("grpcio", "pycapnp"), 0.5


def awaiting(works: Works, loop: str) -> Callable[[int, int], float]:
    """Seconds for one call of an object, of so many, with so many in flight, in an event loop of this kind."""

    async def often(times: int, in_flight: int) -> float:
        return await loops.often(cm.capability(works).cast(AwaitedWorks).add, (1, 2), 3, times, in_flight)

    return lambda times, in_flight: loops.run(loop, often, times, in_flight)


class Way(NamedTuple):
    """One way to call, and the processes that a call goes through, the client's excepted."""

    add_often: Callable[[int, int], float]  # seconds of one call of so many, with so many in flight
    processes: Mapping[str, int]  # by what each is


def _spent(process: int) -> float:
    """Seconds of processor time that a process has used, in the kernel too."""
    return time.clock_gettime((~process << 3) | _CPUCLOCK_SCHED)


def cost(way: Way, part: str, times: int, in_flight: int) -> float:
    """Seconds of processor time for one call: of one of its processes, or of all of them."""
    everybody = {"client": os.getpid(), **way.processes}
    found = everybody.values() if part == "all" else [everybody[part]]
    before = sum(map(_spent, found))
    way.add_often(times, in_flight)
    return (sum(map(_spent, found)) - before) / (warm_up(times) + times)


@benchmark("90 s", rounds=9)
def awaited(at: Report) -> Iterator[Work]:
    """One call, and 64 in flight, on asyncio, uvloop and trio, against others; and what a call costs the server."""
    times, cores = at.loops(640, 100), at.cores
    found = at.can({"asyncio": ""} | not_installed("uvloop", "trio"))
    others = {peers.shown(name): name for name in at.can({name: peers.PEERS[name].unavailable() for name in _PEERS})}
    started = {_THREAD: at.enter(handed_over(servers.blocking, cores=cores))}
    started |= {loop: at.enter(handed_over(servers.awaited, loop, cores=cores)) for loop in found}
    works = {where: capability.cast(Works) for where, (capability, _) in started.items()}
    blocking = works[_THREAD]
    paths = {
        (loop, sender): at.enter(listening(cores, streams.serve, loop, sender))
        for loop in found
        for sender in _BY_HAND.values()
    }
    clients = {shown: at.enter(peers.connected(name, blocking, cores)) for shown, name in others.items()}
    for loop in found:
        targets = {_LOCKED: _TARGETS[loop]} | dict.fromkeys(others, _TARGET_OF_PEERS)
        for kind, in_flight in IN_FLIGHT.items():
            timed: dict[str, Callable[[], float]] = {
                _CAPMARSHAL: partial(awaiting(works[loop], loop), times, in_flight),
                _BLOCKING: partial(often, adding(blocking.add), times),
            }
            for shown, sender in _BY_HAND.items():
                timed[shown] = partial(loops.run, loop, streams.often, paths[loop, sender], sender, times, in_flight)
            for shown, client in clients.items() if loop == "asyncio" else ():
                timed[shown] = partial(client.add_often, times, in_flight)
            yield at.work(f"{loop}, {kind}", timed, against(_CAPMARSHAL, timed, targets))
    for kind, in_flight in IN_FLIGHT.items():
        spent: dict[str, Callable[[], float]] = {}
        for where, (_, server) in started.items():
            way = Way(awaiting(works[where], "asyncio"), {"server": server.pid})
            spent[where] = partial(cost, way, "server", times, in_flight)
        yield at.work(f"processor time of the server, {kind}", spent, [Goal(loop, _THREAD) for loop in found])


_STREAM, _AWAITED, _PIPE = "capmarshal, a stream", "capmarshal, awaited on asyncio", "a pipe + msgspec by hand"
# Of the length that is written before each item.
_LENGTH = 4


def _check(total: int, upto: int) -> None:
    if total != upto * (upto - 1) // 2:
        raise SystemExit("other items came")


def _take(works: Works, upto: int) -> None:
    total = 0
    for number in works.count(upto):
        total += number
    _check(total, upto)


async def _await(works: Works, items: int) -> float:
    numbers = cm.capability(works).cast(AwaitedWorks)

    async def take(upto: int) -> None:
        total = 0
        async for number in numbers.count(upto):
            total += number
        _check(total, upto)

    return await loops.seconds(take, items)


def _read(writer: Process, upto: int) -> None:
    print(upto, file=writer.stdin, flush=True)
    # The bytes beneath the text that it is elsewhere; it was started with a pipe, which typeshed does not know.
    read = writer.stdout.buffer.read  # type: ignore[union-attr]  # see above
    decode = msgspec.msgpack.Decoder(int).decode
    total = 0
    for _ in itertools.repeat(None, upto):
        total += decode(read(int.from_bytes(read(_LENGTH), "little")))
    _check(total, upto)


def write() -> None:
    """Who writes by hand: told on its standard input how many, it writes that many."""
    encode, out = msgspec.msgpack.Encoder().encode, sys.stdout.buffer
    for line in sys.stdin:
        for number in range(int(line)):
            item = encode(number)
            out.write(len(item).to_bytes(_LENGTH, "little"))
            out.write(item)
        out.flush()


@benchmark("60 s", rounds=9)
def items(at: Report) -> Iterator[Work]:
    """A million small items by a stream, in a thread and in an event loop, against a pipe with msgspec by hand."""
    count = at.loops(1_000_000, 2_000)
    thread = at.enter(served(at.cores))
    loop = at.enter(served(at.cores, servers.awaited, "asyncio"))
    writer = at.enter(running(write, cores=at.cores))
    timed: dict[str, Callable[[], float]] = {
        _STREAM: partial(measuring.seconds, partial(_take, thread), count),
        _AWAITED: partial(loops.run, "asyncio", _await, loop, count),
        _PIPE: partial(measuring.seconds, partial(_read, writer), count),
    }
    yield at.work("", timed, [Goal(_STREAM, _PIPE, 1.5), Goal(_AWAITED, _PIPE, 1.5)])
