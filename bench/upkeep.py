"""What it costs to be there: to call a server that has much, to hold much, to be imported, to be looked at."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import capmarshal as cm
from bench import processes, usage
from bench.measuring import Goal, Report, Work, adding, benchmark, often
from bench.processes import line_of, patiently, run_on, running
from bench.servers import Works, WorksServer, served
from capmarshal._capabilities.capability import open_door_of
from capmarshal._inspect.data import as_json
from capmarshal._inspect.looking import look

# A server takes at most 256 channels of one process, and no more than a quarter of its table.
_CHANNELS_MAX, _TABLE_SHARE = 250, 5


def _open_channels(capability: cm.Capability, call: Callable[[], object], count: int) -> None:
    """As that many threads would that call at the same time: whoever finds no channel idle makes one."""
    idle, used = open_door_of(capability).idle, []
    for _ in range(count):
        call()
        used.append(idle.pop())
    idle += used


def member(count: str) -> None:
    """One process of a crowd: has so many channels, once it is told to."""
    works = cm.parent().cast(Works)
    # A call that fails before it is sent: what is needed once is there, but no channel.
    with contextlib.suppress(cm.ArgumentError):
        works.add(object(), 2)  # type: ignore[arg-type]  # so that it fails
    before = usage.fill_up()
    print("here", flush=True)
    sys.stdin.readline()
    _open_channels(cm.parent(), adding(works.add), int(count))
    print(usage.resident() - before, flush=True)
    processes.await_end()


@contextlib.contextmanager
def _crowd(works: Works, channels: int) -> Iterator[tuple[int, int]]:
    """So many channels of other processes, idle, as long as the block runs.

    All together they cost so many bytes in the processes that call; and in the kernel, for both ends, without these.
    """
    before = works.use("open_files")
    most = min(_CHANNELS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _TABLE_SHARE)
    with contextlib.ExitStack() as stack:
        members = [
            stack.enter_context(running(member, min(most, channels - first), parent=cm.capability(works)))
            for first in range(0, channels, most)
        ]
        for each in members:
            # It is there.
            line_of(each)
        kernel = usage.kernel()
        clients = sum(int(line_of(each, "call")) for each in members)
        kernel = usage.kernel() - kernel
        more = works.use("open_files") - before
        # And the pidfd of each process, where the kernel gives one.
        if more not in (channels, channels + len(members)):
            raise SystemExit(f"{channels} channels were to be made, and the server has {more}")
        yield clients, kernel

    def look_whether_left() -> None:
        if works.use("open_files") > before:
            raise TimeoutError("the server keeps what a crowd has left")

    # It notices at its own pace that they have ended.
    patiently(look_whether_left, TimeoutError)


def _make_room(channels: int) -> None:
    """In the tables of the servers to come."""
    # Channels fill at most three quarters of it.
    processes.make_room(channels * 3 // 2)


@benchmark("15 s", rounds=15)
def crowd(at: Report) -> Iterator[Work]:
    """A call to a server with 1,000 idle channels and 10,000 managed objects, against one with 1 and 1."""
    calls, (channels, objects) = at.loops(5000, 20), at.either((1000, 10_000), (20, 50))
    _make_room(channels)
    at.settings |= {"channels": channels, "objects": objects}
    alone, crowded = (at.enter(served(at.cores)) for _ in range(2))
    at.enter(_crowd(crowded, channels))
    crowded.manage(objects)
    busy, idle = f"{channels:,} idle channels, {objects:,} objects", "1 channel, 1 object"
    timed = {name: partial(often, adding(to.add), calls) for name, to in ((busy, crowded), (idle, alone))}
    yield at.work("", timed, [Goal(busy, idle, 1.3)])


# In one answer.
_HANDED_OUT = 500


def _channels(count: int) -> tuple[float, ...]:
    """Bytes for so many, of other processes."""
    with served() as works:
        # The first of whatever it needs once.
        with _crowd(works, 1):
            pass
        resident = works.use("fill_up")
        with _crowd(works, count) as (clients, kernel):
            return works.use("resident") - resident, clients, kernel


def _objects(count: int) -> tuple[float, ...]:
    """Bytes for so many managed objects, which are empty themselves."""
    with served() as works:
        works.manage(1)
        resident = works.use("fill_up")
        works.manage(count)
        return (works.use("resident") - resident,)


def _capabilities(count: int) -> tuple[float, ...]:
    """Bytes for so many that a process holds, of objects of one entrypoint of another process."""
    with served() as works, served() as holder:
        # The last one is handed over before: the door, and whatever is needed once, is not counted.
        works.manage(count + 1)
        holder.keep(*works.hand_out(count, 1))
        resident = holder.use("fill_up")
        for first in range(0, count, _HANDED_OUT):
            for thing in works.hand_out(first, min(_HANDED_OUT, count - first)):
                held = holder.keep(thing)
        if held != count + 1:
            raise SystemExit("capabilities were lost")
        return (holder.use("resident") - resident,)


# What is measured, and where: in one go.
_PIECES: dict[str, tuple[Callable[[int], tuple[float, ...]], list[str]]] = {
    "a channel": (_channels, ["server, resident", "client, resident", "kernel"]),
    "a managed object": (_objects, ["server, resident"]),
    "a held capability": (_capabilities, ["holder, resident"]),
}
# What was measured in one go, and is still to be shown: by which and how many, round by round.
_Waiting = defaultdict[tuple[int, int], list[float]]


def _of_one(measure: Callable[[int], tuple[float, ...]], waiting: _Waiting, which: int, count: int) -> float:
    """Bytes for one of so many; the rounds of each work come in the same order."""
    if not waiting[which, count]:
        for other, cost in enumerate(measure(count)):
            waiting[other, count].append(cost / count)
    return waiting[which, count].pop(0)


@benchmark("60 s", rounds=3, everywhere=False)
def memory(at: Report) -> Iterator[Work]:
    """Memory of a channel, a managed object, a held capability, each at 1 to 10,000 of them."""
    counts = at.either((1, 100, 1000, 10_000), (100, 300))
    _make_room(max(counts))
    for piece, (measure, everywhere) in _PIECES.items():
        waiting = _Waiting(list)
        for which, where in enumerate(everywhere):
            sizes = {f"of {count:,}": partial(_of_one, measure, waiting, which, count) for count in counts}
            *_, fewer, most = sizes
            yield Work(f"{piece}, {where}", None, sizes, [Goal(most, fewer)], unit="byte")


_CAPMARSHAL, _ASYNCIO = "import capmarshal", "import asyncio"
# What a process needs that makes calls or serves them.
_INTERFACE = "from capmarshal import Interface"


def _start(source: str) -> float:
    """Seconds of processor time: not those in which it waited for others."""
    process = os.posix_spawn(sys.executable, [sys.executable, "-I", "-c", source], os.environ)
    _, status, used = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(f"{source} ended with status {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


def _take(source: str, starts: int) -> float:
    """Seconds of processor time for one, without those of a start that imports nothing."""
    return sum(_start(source) - _start("pass") for _ in range(starts)) / starts


@benchmark("25 s", rounds=21, everywhere=False)
def imports(at: Report) -> Iterator[Work]:
    """``import capmarshal`` against ``import asyncio``, in fresh interpreters, without what those take alone."""
    starts = at.loops(5, 1)
    run_on(at.cores.client)
    timed = {source: partial(_take, source, starts) for source in (_CAPMARSHAL, _INTERFACE, _ASYNCIO)}
    for take in timed.values():
        # Compiled, and in the page cache.
        take()
    timed["a bare start"] = partial(_start, "pass")
    yield at.work("", timed, [Goal(_CAPMARSHAL, _ASYNCIO, 0.8), Goal(_INTERFACE, _ASYNCIO)])


_COMMAND, _LOOK = "capmarshal inspect --json", "a look, in a program"
_SS, _PROC = "ss -xap", "/proc/net/unix and /proc/PID/fd"


def inspected(entrypoints: str, channels: str) -> None:
    """Serves at so many entrypoints, and starts a client that has so many channels to each."""
    with contextlib.ExitStack() as stack:
        at = [stack.enter_context(cm.Entrypoint(f"inspected {number}")) for number in range(int(entrypoints))]
        works = [WorksServer(each) for each in at]
        for each, served_there in zip(at, works, strict=True):
            each.manage(served_there)
        given = at[0].manage(WorksServer(at[0], *works))
        line_of(stack.enter_context(running(inspecting, entrypoints, channels, parent=given)))
        print("serves", flush=True)
        processes.await_end()


def inspecting(entrypoints: str, channels: str) -> None:
    """That client."""
    for capability in (held := cm.parent().cast(Works).hand_out(0, int(entrypoints))):
        _open_channels(capability, adding(capability.cast(Works).add), int(channels))
    print(f"holds {len(held)}", flush=True)
    processes.await_end()


def _run(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def _read() -> float:
    """The least that tells who has which socket: without the peers, and what waits."""
    begin = time.perf_counter()
    Path("/proc/net/unix").read_bytes()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                for number in os.scandir(process / "fd"):
                    with contextlib.suppress(OSError):
                        os.readlink(number.path)  # noqa: PTH115 - the quickest way
    return time.perf_counter() - begin


def _look(servers: frozenset[int], entrypoints: int, channels: int) -> float:
    begin = time.perf_counter()
    view = look()
    as_json(view)
    taken = time.perf_counter() - begin
    # There may be others on this machine, of another run perhaps.
    ours = view.only(servers).entrypoints
    seen = [each for each in ours if each.door is not None and each.door.label.startswith("inspected ")]
    if (found := (len(seen), sum(len(each.channels) for each in seen))) != (entrypoints, channels):
        raise SystemExit(f"entrypoints and channels: {found} were seen of {(entrypoints, channels)}")
    return taken


@benchmark("40 s", rounds=9, everywhere=False)
def inspect(at: Report) -> Iterator[Work]:
    """``capmarshal inspect`` of 500 entrypoints with 5,000 channels, against other ways to read the same."""
    servers, entrypoints, channels = at.either((10, 50, 10), (2, 3, 2))
    processes.make_room(entrypoints * (channels + 4))
    many, all_channels = servers * entrypoints, servers * entrypoints * channels
    at.settings |= {"entrypoints": many, "channels": all_channels}
    started = [at.enter(running(inspected, entrypoints, channels)) for _ in range(servers)]
    for process in started:
        line_of(process)
    timed: dict[str, Callable[[], float]] = {
        _COMMAND: partial(_run, [sys.executable, "-P", "-m", "capmarshal", "inspect", "--json"]),
        _LOOK: partial(_look, frozenset(process.pid for process in started), many, all_channels),
        _PROC: _read,
    }
    ss = shutil.which("ss")
    if ss is not None:
        timed[_SS] = partial(_run, [ss, "-xap"])
    goals = [Goal(_COMMAND, _SS, 4.0), Goal(_LOOK, _PROC)]
    cannot = {} if ss else {_SS: "iproute2 is not installed"}
    yield Work(f"{many:,} entrypoints, {all_channels:,} channels", None, timed, goals, cannot)
