"""What one call costs: of numbers, with descriptors, with capabilities; with polling."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import capmarshal as cm
from bench import c_program, contenders
from bench.charts import bar_chart
from bench.contenders import DESCRIPTORS_MAX, close_all
from bench.measuring import Goal, Report, Work, adding, against, benchmark, checked, often
from bench.processes import ONE_CORE, TWO_CORES, Cores, Process, line_of, running
from bench.servers import Thing, Works, by_hand, served

T = TypeVar("T")
# By kind of work and contender, what is done in Python; each until the next is asked for.
Deeds = Iterator[tuple[str, dict[str, Callable[[], object]]]]

_ADD = "capmarshal, typed call"
_KEPT, _C_POLLING, _FRESH = "C, kept channel", "C, kept channel, polling", "C, reply socketpair per call"
_BARE, _RPC = "sendmsg + msgspec by hand, bare", "sendmsg + msgspec by hand, as an RPC"
_FILE, _FILE_BY_HAND = "an open file in, 64 characters back", "send_fds + msgspec by hand, a file object made of it"
# Of the program in C; on one core, nobody polls.
_MODES = {
    ONE_CORE: {_KEPT: "kept", _FRESH: "fresh"},
    TWO_CORES: {_KEPT: "kept", _FRESH: "fresh", _C_POLLING: "polling"},
}
_CALL_TARGETS = {
    ONE_CORE: {_KEPT: 1.4, _FRESH: 0.7, _BARE: 0.95, _RPC: 0.95, _FILE_BY_HAND: 1.2},
    TWO_CORES: {_KEPT: 0.2, _C_POLLING: 1.6},
}


def call_deeds(works: Works) -> Deeds:
    """Sums, and a file."""
    with by_hand(works, contenders.Add) as bare, by_hand(works, contenders.Rpc) as rpc:
        yield "", {_ADD: adding(works.add), _BARE: adding(bare.add), _RPC: adding(rpc.add)}
    with by_hand(works, contenders.Describe) as other, Path(sys.executable).open("rb") as file:
        both = {_ADD: works.describe, _FILE_BY_HAND: other.describe}
        yield _FILE, {who: checked(describe, (file,), contenders.TEXT) for who, describe in both.items()}


@benchmark("40 s", rounds=15)
def call(at: Report) -> Iterator[Work]:
    """A typed call that adds two integers, against the same in C and by hand; and an open file in, text back."""
    calls = at.loops(5000, 20)
    at.settings |= zip(("call_bytes", "reply_bytes"), c_program.record_sizes(), strict=True)
    for kind, by_name in call_deeds(at.enter(served(at.cores))):
        timed = {who: partial(often, deed, calls) for who, deed in by_name.items()}
        if not kind:
            timed |= {
                who: partial(c_program.call, mode, calls, at.cores) for who, mode in _MODES[at.cores.kind].items()
            }
        yield at.work(kind, timed, against(_ADD, timed, _CALL_TARGETS[at.cores.kind]))
    adds = [work for work in at.works if not work.name.startswith(_FILE)]
    at.pictures["call.svg"] = bar_chart("A typed call, add(int, int)", adds)


_SWAP, _SEND_FDS, _C = "capmarshal", "socket.send_fds, recv_fds", "C"
# The mode of the program in C, how many, and the most that capmarshal may be a multiple of send_fds.
_SWAPS = {
    "memfds, 1 each way": ("memfds", 1, 1.3),
    "memfds, 16 each way": ("memfds", 16, 1.3),
    "memfds, 253 each way": ("memfds", DESCRIPTORS_MAX, 1.5),
    "regular files, 1 each way": ("files", 1, 1.4),
    "regular files, 16 each way": ("files", 16, 1.4),
    "regular files, 253 each way": ("files", DESCRIPTORS_MAX, 1.7),
}
_TARGET_OF_C = 1.2
# Of calls, in one measurement.
_SWAPS_MAX, _SWAPS_MIN = 3000, 2


def _open(mode: str) -> int:
    return os.memfd_create("bench") if mode == "memfds" else os.open(sys.executable, os.O_RDONLY)


def _swap(swap: Callable[[list[T]], Sequence[T]], files: list[T], close: Callable[[T], object]) -> None:
    came = swap(files)
    if len(came) != len(files):
        raise SystemExit("files were lost")
    for file in came:
        close(file)


def _check(sent: list[int], came: list[int]) -> None:
    """Closes what came."""
    if [os.fstat(number).st_ino for number in sent] != [os.fstat(number).st_ino for number in came]:
        raise SystemExit("other files came back than were sent")
    close_all(came)


def swap_deeds(works: Works) -> Deeds:
    """Descriptors there and back."""
    with by_hand(works, contenders.Swap) as other:
        for kind, (mode, count, _) in _SWAPS.items():
            files = [cm.Descriptor(_open(mode)) for _ in range(count)]
            numbers = [file.fileno() for file in files]
            _check(numbers, [file.detach() for file in works.swap(files)])
            _check(numbers, other.swap(numbers))
            own = partial(_swap, works.swap, files, cm.Descriptor.close)
            yield kind, {_SWAP: own, _SEND_FDS: partial(_swap, other.swap, numbers, os.close)}
            for file in files:
                file.close()


@benchmark("80 s", rounds=15)
def descriptors(at: Report) -> Iterator[Work]:
    """A call with 1, 16 and 253 descriptors each way, against socket.send_fds and C, all with the closing."""
    works, enough = at.enter(served(at.cores)), at.either(30_000, 300)
    # What the server leaves to others to close is waited for.
    settle = {_SWAP: partial(works.use, "settle")}
    for kind, by_name in swap_deeds(works):
        mode, count, target = _SWAPS[kind]
        calls = max(min(enough // count, _SWAPS_MAX), _SWAPS_MIN)
        timed = {who: partial(often, deed, calls, settle.get(who)) for who, deed in by_name.items()}
        timed[_C] = partial(c_program.call, mode, calls, at.cores, count)
        yield at.work(kind, timed, against(_SWAP, timed, {_SEND_FDS: target, _C: _TARGET_OF_C}))


# A receiver holds at most 256 doors that came from one process.
_THINGS = 200
_DATA = "a call of data, add(int, int)"
_HELD, _NEW, _NEW_DOOR = "the receiver holds it", "new to it, of a known entrypoint", "new to it"


def _entrypoints(stack: contextlib.ExitStack, count: int) -> list[cm.Entrypoint]:
    """So many, which nobody serves: capabilities of theirs can be passed all the same."""
    return [stack.enter_context(contextlib.closing(cm.Entrypoint("thing"))) for _ in range(count)]


def capability_deeds(works: Works) -> Deeds:
    """A call with a capability that is held from the first one on, one that is new each time, and each beside data."""
    with contextlib.ExitStack() as stack:
        first, *things = (entrypoint.manage(Thing()) for entrypoint in _entrypoints(stack, 1 + _THINGS))
        keep, new = works.keep, iter(things)
        yield "a capability in, held already", {_SWAP: partial(keep, first), _DATA: adding(works.add)}
        yield "a capability in, new to it", {_SWAP: lambda: keep(next(new)), _DATA: adding(works.add)}
        works.drop()


def _pass(works: Works, things: Sequence[cm.Capability], held: Sequence[cm.Capability], batches: int) -> float:
    """Seconds for one, when the receiver holds ``held`` before; each batch ends with dropping all, untimed."""
    taken, keep = 0, works.keep
    for _ in range(batches):
        for thing in held:
            keep(thing)
        begin = time.perf_counter_ns()
        for thing in things:
            has = keep(thing)
        taken += time.perf_counter_ns() - begin
        if has != len({*held, *things}):
            raise SystemExit("the receiver has not recognised what it holds")
        works.drop()
    return taken / batches / len(things) / 1e9


@benchmark("20 s", rounds=15)
def capability(at: Report) -> Iterator[Work]:
    """Passing a capability that the receiver already holds, against one that is new to it, and plain calls."""
    count, batches = at.either((_THINGS, 10), (5, 1))
    at.settings["loops"] = count * batches
    entrypoints = _entrypoints(at.stack, count)
    # An entrypoint holds its objects, and a capability is held by whoever passes it.
    first, second = ([entrypoint.manage(Thing()) for entrypoint in entrypoints] for _ in range(2))
    works = at.enter(served(at.cores))
    timed = {
        _HELD: partial(_pass, works, first, first, batches),
        _NEW: partial(_pass, works, second, first, batches),
        _NEW_DOOR: partial(_pass, works, first, (), batches),
        _DATA: partial(often, adding(works.add), count * batches),
    }
    goals = Goal(_HELD, _NEW_DOOR, 0.8), Goal(_HELD, _NEW), Goal(_HELD, _DATA, 2.0), Goal(_NEW_DOOR, _DATA, 3.0)
    yield at.work("", timed, goals)


_POLLING, _SLEEPING = "capmarshal, polling", "capmarshal, sleeping"
# What each has in its environment, and in that of its server.
_POLL = {_POLLING: "1", _SLEEPING: "0"}
# Ends with this process, however that ends.
_BUSY_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while os.getppid() == int(sys.argv[2]):
    for _ in range(100_000):
        pass
"""


def polling_client(client: str, server: str) -> None:
    """Has a server of its own: told on its standard input how many calls to make, it answers with seconds."""
    cores = Cores(int(client), int(server))
    with served(cores) as works:
        for line in sys.stdin:
            print(often(adding(works.add), int(line)), flush=True)


@contextlib.contextmanager
def polling_clients(cores: Cores, busy: Sequence[int], started: dict[str, Process]) -> Iterator[None]:
    """Clients that read at their start whether they are to poll, and busy loops on some cores; into ``started``.

    They are new in each round: two that are alike differ by some per cent all their life, by where their memory
    happens to be.
    """
    with contextlib.ExitStack() as stack:
        for name, value in _POLL.items():
            environment = {**os.environ, "CAPMARSHAL_POLL": value}
            started[name] = stack.enter_context(running(polling_client, *cores, env=environment))
            # Untimed: all that a process does for the first time.
            polling_seconds(started, name, 100)
        for cpu in busy:
            command = [sys.executable, "-I", "-S", "-c", _BUSY_LOOP, str(cpu), str(os.getpid())]
            loop = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(loop.kill)
            line_of(loop)
        yield


def polling_seconds(started: Mapping[str, Process], name: str, calls: int) -> float:
    """For one call."""
    return float(line_of(started[name], str(calls)))


@benchmark("150 s", rounds=21)
def polling(at: Report) -> Iterator[Work]:
    """Capmarshal with and without polling before it sleeps, where it helps and where it might harm."""
    # As many as take a while where each waits for a time slice: a scheduler's slice is some milliseconds.
    calls, cores = at.loops(2000, 20), at.cores
    situations: dict[str, list[int]] = {"": []}
    if cores.kind == TWO_CORES:
        situations |= {", a busy loop on one": [cores.client], ", busy loops on both": [*cores]}
    for situation, busy in situations.items():
        started: dict[str, Process] = {}
        timed = {name: partial(polling_seconds, started, name, calls) for name in _POLL}
        timed[_KEPT] = partial(c_program.call, "kept", calls, cores)
        each_round = partial(polling_clients, cores, busy, started)
        goals = [Goal(_POLLING, _SLEEPING, 1.05)]
        yield Work(f"{cores.kind}{situation}", cores, timed, goals, each_round=each_round, there_and_back=True)
