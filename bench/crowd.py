"""A call to a server with 1,000 idle channels and 10,000 managed objects, against one with 1 and 1.

``python -m bench.crowd CHANNELS`` is one process of the crowd.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import capmarshal as cm
from bench import CHECKOUT, places, processes, servers, usage
from bench.measuring import Report, Settings, Work, adding, against, everywhere, measure, often
from bench.places import Cores
from bench.servers import Works
from capmarshal._capabilities.capability import open_door_of

TAKES = "15 s"
_CALLS, _QUICK_CALLS, _ROUNDS = 5000, 20, 15
_CHANNELS, _QUICK_CHANNELS = 1000, 20
_OBJECTS, _QUICK_OBJECTS = 10_000, 50
_TARGET = 1.3

# A server takes at most 256 channels of one process, and no more than a quarter of its table.
_CHANNELS_MAX, _TABLE_SHARE = 250, 5


class Cost(NamedTuple):
    """Bytes for all channels together.

    Attributes:
        clients: in the processes that call.
        kernel: in the kernel, for both ends; without these processes.
    """

    clients: int
    kernel: int


def room_for(channels: int) -> int:
    """Makes room in the tables of the servers to come; for how many channels there is."""
    # They fill at most three quarters of it.
    return min(channels, places.room_in_table(channels * 3 // 2) * 2 // 3)


@contextlib.contextmanager
def crowd(capability: cm.Capability, channels: int) -> Iterator[Cost]:
    """So many channels of other processes, idle, as long as the block runs; what they cost."""
    works = capability.cast(Works)
    before = works.open_files()
    most = min(_CHANNELS_MAX, places.table() // _TABLE_SHARE)
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        members = []
        for first in range(0, channels, most):
            command = processes.command("crowd", str(min(most, channels - first)))
            members.append(cm.spawn(command, parent=capability, stdin=pipe, stdout=pipe, cwd=CHECKOUT))
            stack.callback(processes.end, members[-1])
            # It is there.
            processes.line_of(members[-1])
        kernel = usage.kernel()
        clients = sum(int(processes.line_of(member, "call")) for member in members)
        cost = Cost(clients, usage.kernel() - kernel)
        more = works.open_files() - before
        # And the pidfd of each process, where the kernel gives one.
        if more not in (channels, channels + len(members)):
            raise SystemExit(f"{channels} channels were to be made, and the server has {more}")
        yield cost
    # It notices at its own pace that they have ended.
    give_up = time.monotonic() + processes.PATIENCE
    while works.open_files() > before:
        if time.monotonic() > give_up:
            raise SystemExit("the server keeps what a crowd has left")
        time.sleep(0.01)


def run(settings: Settings) -> Report:
    """Measures it at each place."""
    calls, wanted, objects = (
        (_QUICK_CALLS, _QUICK_CHANNELS, _QUICK_OBJECTS) if settings.quick else (_CALLS, _CHANNELS, _OBJECTS)
    )
    channels = room_for(wanted)
    report = Report(settings={"loops": calls, "channels": channels, "objects": objects})
    if channels < wanted:
        report.notes.append(f"{wanted:,} channels: the hard limit of open files (ulimit -Hn) leaves {channels:,}")
    with processes.served() as few, processes.served() as many:
        alone, crowded = few.cast(Works), many.cast(Works)
        crowded.manage(objects)
        busy = f"{channels:,} idle channels, {objects:,} objects"
        timed = {
            busy: partial(often, adding(crowded.add), calls),
            "1 channel, 1 object": partial(often, adding(alone.add), calls),
        }

        def at(cores: Cores) -> Iterator[Work]:
            for works in (alone, crowded):
                servers.place(works, cores)
            yield Work("", timed, against(busy, timed, dict.fromkeys(timed, everywhere(_TARGET))))

        with crowd(many, channels):
            report.comparisons = measure(at, settings.rounds_or(_ROUNDS))
    return report


def _call(works: Works, count: int) -> None:
    """Calls on so many channels, as that many threads would that call at the same time; they are idle then."""
    idle = open_door_of(cm.capability(works)).idle
    used = []
    add = adding(works.add)
    for _ in range(count):
        add()
        # Whoever finds none idle makes one.
        used.append(idle.pop())
    idle += used


def _main(count: int) -> None:
    works = cm.parent().cast(Works)
    # A call that fails before it is sent: what is needed once is there, but no channel.
    with contextlib.suppress(cm.ArgumentError):
        works.add(object(), 2)  # type: ignore[arg-type]  # so that it fails
    full = usage.fill_up()
    before = usage.resident()
    print("here", flush=True)
    sys.stdin.buffer.readline()
    _call(works, count)
    print(usage.resident() - before, flush=True)
    del full
    processes.await_end()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
