"""Many channels to one server, from several processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import capmarshal as cm
from bench import CHECKOUT, limits, serving, usage
from bench.hall import Hall
from capmarshal._capabilities.capability import open_door_of

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    return min(channels, limits.room_in_table(channels * 3 // 2) * 2 // 3)


def _line(stream: IO[bytes] | None) -> str:
    line = stream.readline().decode().strip() if stream is not None else ""
    if not line:
        raise SystemExit("a process of the crowd ended")
    return line


@contextlib.contextmanager
def crowd(capability: cm.Capability, hall: Hall, channels: int) -> Iterator[Cost]:
    """So many channels of other processes, idle, as long as the block runs; what they cost."""
    before = hall.open_files()
    most = min(_CHANNELS_MAX, limits.table() // _TABLE_SHARE)
    with contextlib.ExitStack() as stack:
        processes = []
        for first in range(0, channels, most):
            process = cm.spawn(
                serving.command("crowding", str(min(most, channels - first))),
                parent=capability,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=CHECKOUT,
            )
            stack.callback(serving.end, process)
            _line(process.stdout)
            processes.append(process)
        kernel, clients = usage.kernel(), 0
        for process in processes:
            _tell(process)
            clients += int(_line(process.stdout))
        cost = Cost(clients, usage.kernel() - kernel)
        more = hall.open_files() - before
        # And the pidfd of each process, where the kernel gives one.
        if more not in (channels, channels + len(processes)):
            raise SystemExit(f"{channels} channels were to be made, and the server has {more}")
        yield cost


def _tell(process: subprocess.Popen[Any]) -> None:
    if process.stdin is not None:
        process.stdin.write(b"\n")
        process.stdin.flush()


def _call(hall: Hall, count: int) -> None:
    """Calls on so many channels, as that many threads would that call at the same time; they are idle then."""
    idle = open_door_of(cm.capability(hall)).idle
    used = []
    a, b = 1, 2
    for _ in range(count):
        if hall.add(a, b) != a + b:
            raise SystemExit("a wrong result came")
        # Whoever finds none idle makes one.
        used.append(idle.pop())
    idle += used


def _main(count: int) -> None:
    """One process of the crowd."""
    hall = cm.parent().cast(Hall)
    # A call that fails before it is sent: what is needed once is there, but no channel.
    with contextlib.suppress(cm.ArgumentError):
        hall.add(object(), 2)  # type: ignore[arg-type]  # so that it fails
    full = usage.fill_up()
    before = usage.resident()
    print("here", flush=True)
    sys.stdin.buffer.readline()
    _call(hall, count)
    print(usage.resident() - before, flush=True)
    del full
    serving.await_end()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
