"""A call to a server with 1,000 idle channels and 10,000 managed objects, against one with 1 and 1.

``python -m bench.crowd CHANNELS`` is one process of the crowd.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from functools import partial

import capmarshal as cm
from bench import processes, usage
from bench.measuring import Goal, Report, Work, adding, often
from bench.server import Works, served
from capmarshal._capabilities.capability import open_door_of

TAKES, ROUNDS = "15 s", 15
_CHANNELS, _QUICK_CHANNELS = 1000, 20
_OBJECTS, _QUICK_OBJECTS = 10_000, 50
_TARGET = 1.3

# A server takes at most 256 channels of one process, and no more than a quarter of its table.
_CHANNELS_MAX, _TABLE_SHARE = 250, 5


def make_room(channels: int) -> None:
    """Makes room for channels in the tables of the servers to come."""
    # They fill at most three quarters of it.
    processes.make_room(channels * 3 // 2)


@contextlib.contextmanager
def crowd(works: Works, channels: int) -> Iterator[tuple[int, int]]:
    """So many channels of other processes, idle, as long as the block runs.

    All together they cost so many bytes in the processes that call; and in the kernel, for both ends, without these.
    """
    before = works.use("open_files")
    most = min(_CHANNELS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _TABLE_SHARE)
    with contextlib.ExitStack() as stack:
        counts = (min(most, channels - first) for first in range(0, channels, most))
        started = (processes.running("crowd", str(count), parent=cm.capability(works)) for count in counts)
        members = [stack.enter_context(member) for member in started]
        for member in members:
            # It is there.
            processes.line_of(member)
        kernel = usage.kernel()
        clients = sum(int(processes.line_of(member, "call")) for member in members)
        kernel = usage.kernel() - kernel
        more = works.use("open_files") - before
        # And the pidfd of each process, where the kernel gives one.
        if more not in (channels, channels + len(members)):
            raise SystemExit(f"{channels} channels were to be made, and the server has {more}")
        yield clients, kernel
    # It notices at its own pace that they have ended.
    give_up = time.monotonic() + processes.PATIENCE
    while works.use("open_files") > before:
        if time.monotonic() > give_up:
            raise SystemExit("the server keeps what a crowd has left")
        time.sleep(0.01)


def run(report: Report) -> Iterator[Work]:
    calls, objects = report.loops(5000, 20), _QUICK_OBJECTS if report.quick else _OBJECTS
    channels = _QUICK_CHANNELS if report.quick else _CHANNELS
    make_room(channels)
    report.settings |= {"channels": channels, "objects": objects}
    busy, idle = f"{channels:,} idle channels, {objects:,} objects", "1 channel, 1 object"
    for cores in processes.places():
        with served(cores) as alone, served(cores) as crowded, crowd(crowded, channels):
            crowded.manage(objects)
            timed = {name: partial(often, adding(to.add), calls) for name, to in ((busy, crowded), (idle, alone))}
            yield Work(cores.named(), cores, timed, [Goal(busy, idle, _TARGET)])


def _main(count: int) -> None:
    works = cm.parent().cast(Works)
    # A call that fails before it is sent: what is needed once is there, but no channel.
    with contextlib.suppress(cm.ArgumentError):
        works.add(object(), 2)  # type: ignore[arg-type]  # so that it fails
    before = usage.fill_up()
    print("here", flush=True)
    sys.stdin.readline()
    # As that many threads would that call at the same time: whoever finds no channel idle makes one.
    add, idle, used = adding(works.add), open_door_of(cm.capability(works)).idle, []
    for _ in range(count):
        add()
        used.append(idle.pop())
    idle += used
    print(usage.resident() - before, flush=True)
    processes.await_end()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
