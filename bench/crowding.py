"""Many channels to one server, from several processes."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

import capmarshal as cm
from bench import CHECKOUT, limits, serving, usage
from bench.hall import Hall

if TYPE_CHECKING:
    from collections.abc import Iterator

# A channel for each thread that calls while nobody is served.  A server takes at most 256 from one process, and no more
# than a quarter of its table.
_THREADS_MAX, _TABLE_SHARE = 200, 5
_STACK = 256 << 10
# Seconds; reached only when something is wrong.
_PATIENCE = 60.0


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
def _doors_closed(hall: Hall) -> Iterator[None]:
    """The server serves nobody as long as the block runs; the call that does that is made by a thread."""
    begins, begun = os.pipe()
    until, release = os.pipe()
    with cm.Descriptor(begins), cm.Descriptor(begun) as server_begun, cm.Descriptor(until) as server_until:
        waiting = threading.Thread(target=hall.close_doors, args=(server_begun, server_until))
        waiting.start()
        try:
            if not select.select([begins], [], [], _PATIENCE)[0]:
                raise SystemExit("the server did not close its doors")
            yield
        finally:
            os.close(release)
            waiting.join(_PATIENCE)


@contextlib.contextmanager
def crowd(capability: cm.Capability, hall: Hall, channels: int) -> Iterator[float]:
    """So many channels of other processes, idle, as long as the block runs; bytes that one costs its process."""
    before = hall.open_files()
    with contextlib.ExitStack() as stack:
        cost = counted = 0
        most = min(_THREADS_MAX, limits.table() // _TABLE_SHARE)
        for first in range(0, channels, most):
            threads = min(most, channels - first)
            process = cm.spawn(
                serving.command("crowding", str(threads)),
                parent=capability,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=CHECKOUT,
            )
            stack.callback(serving.end, process)
            # One after the other: the door's queue has room for the knocks of one.
            _line(process.stdout)
            with _doors_closed(hall):
                _tell(process)
                _line(process.stdout)
            cost += int(_line(process.stdout))
            # Each process had its first before.
            counted += threads - 1
        more = hall.open_files() - before
        if more != channels:
            raise SystemExit(f"{channels} channels were to be made, and the server has {more}")
        yield cost / counted if counted else 0


def _tell(process: subprocess.Popen[Any]) -> None:
    if process.stdin is not None:
        process.stdin.write(b"\n")
        process.stdin.flush()


def _call(hall: Hall) -> None:
    a, b = 1, 2
    if hall.add(a, b) != a + b:
        raise SystemExit("a wrong result came")


def _await_files(count: int) -> None:
    give_up = time.monotonic() + _PATIENCE
    while usage.open_files() != count:
        if time.monotonic() > give_up:
            raise SystemExit("a thread did not come to knock")
        time.sleep(0.0005)


def _main(count: int) -> None:
    """One process of the crowd."""
    threading.stack_size(_STACK)
    hall = cm.parent().cast(Hall)
    # As many threads before, one after the other: on one channel.
    for _ in range(count):
        thread = threading.Thread(target=_call, args=(hall,))
        thread.start()
        thread.join()
    before, files = usage.resident(), usage.open_files()
    print("here", flush=True)
    sys.stdin.buffer.readline()
    threads = []
    for number in range(count):
        threads.append(threading.Thread(target=_call, args=(hall,)))
        threads[-1].start()
        # All but one make a channel.  While they knock, they have its other end as well.
        _await_files(files + number)
    print("called", flush=True)
    for thread in threads:
        thread.join()
    del thread, threads
    print(usage.resident() - before, flush=True)
    serving.await_end()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
