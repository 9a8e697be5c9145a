"""The neighbour: ``python -m bench.neighbours.neighbour LOAD CORE`` does one thing until its standard input ends.

It prints a line when it goes on for good, and at the end, as JSON, how long it takes once while nobody else calls, how
often it did it, and how often it could not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import select
import statistics
import sys
import threading
import time
import timeit
from typing import TYPE_CHECKING

from bench import places
from bench.neighbours.raw import Door

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from bench.servers import Works

_TRIES = 7
# Seconds; the benchmark asks for the end long before.
_LONGEST = 120.0


class Neighbour:
    """What a load has to work with: a door to speak through by hand, and a proxy."""

    def __init__(self, door: Door, shared: Works) -> None:
        self.door: Door = door
        self.shared: Works = shared
        self.over = threading.Event()
        # By many threads, and one step of the interpreter's.
        self.done, self.refused = itertools.count(), itertools.count()

    def attempt(self, deed: Callable[[], object]) -> None:
        """Does it once; an error is counted, and no more."""
        try:
            deed()
        except Exception:  # noqa: BLE001 - whatever it is: the load goes on
            next(self.refused)
            time.sleep(0.001)
        else:
            next(self.done)

    def repeat(self, deed: Callable[[], object], threads: int = 1) -> None:
        """Does it again and again, in so many threads."""

        def run() -> None:
            while not self.over.is_set():
                self.attempt(deed)

        for _ in range(threads):
            threading.Thread(target=run, daemon=True).start()

    def keep(self, most: int, records: list[bytes], *, go_on: bool) -> None:
        """Keeps as many channels as it gets, up to ``most``; those that the server ends are replaced at once.

        The records are sent on each, and nothing is read; or, to ``go_on``, they are sent again and again as long as
        there is room, and the answers thrown away.
        """
        channels: dict[int, socket.socket] = {}
        poll = select.poll()

        def add() -> None:
            near = self.door.knock()
            channels[near.fileno()] = near
            poll.register(near, select.POLLIN | select.POLLOUT if go_on else 0)
            if not go_on:
                _send(near, records)

        while not self.over.is_set():
            if len(channels) < most:
                self.attempt(add)
            for number, event in poll.poll(0 if len(channels) < most else 50):
                if event & select.POLLHUP:
                    poll.unregister(number)
                    channels.pop(number).close()
                    next(self.refused)
                else:
                    _drain(channels[number])
                    _send(channels[number], records)
                    next(self.done)


def _send(channel: socket.socket, records: list[bytes]) -> None:
    with contextlib.suppress(BlockingIOError, ConnectionError):
        for record in records:
            channel.send(record)


def _drain(channel: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while channel.recv(4096):
            pass


def _main(name: str, core: int) -> None:
    door = Door.inherited()
    places.run_on(core)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Now: importing capmarshal takes the door.
    import capmarshal as cm
    from bench.neighbours.loads import LOADS
    from bench.neighbours.server import drop_root
    from bench.servers import Works

    load = LOADS[name]
    neighbour = Neighbour(door, cm.parent().cast(Works))
    if load.other_user:
        drop_root(1)
    once = statistics.median(timeit.repeat(lambda: load.once(neighbour), number=1, repeat=_TRIES))
    threading.Thread(target=load.go_on, args=(neighbour,), daemon=True).start()
    print("here", flush=True)
    select.select([sys.stdin], [], [], _LONGEST)
    neighbour.over.set()
    print(json.dumps([once, next(neighbour.done), next(neighbour.refused)]), flush=True)
    # Its threads may be in the middle of something.
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
