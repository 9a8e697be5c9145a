"""The server that the honest client and its neighbour share."""

from __future__ import annotations

import logging
import os
import resource
import time

import capmarshal as cm
from bench import processes, servers

# The default of most machines.
_TABLE = 1024
_FIRST_USER, _USERS = 20_000, 20_000


class Shared(servers.Station):
    """What both call."""

    @cm.method
    def add(self, a: int, b: int) -> int:
        """The sum: the honest client's call."""

    @cm.method
    def nap(self, seconds: float) -> None:
        """Takes its time; raises ValueError for a negative one."""

    @cm.method
    def take(self, data: bytes, files: list[cm.Descriptor]) -> None:
        """Takes all of it."""

    @cm.method
    def make(self, size: int, count: int) -> tuple[bytes, list[cm.Descriptor]]:
        """So many bytes, and so many descriptors."""


class SharedServer(servers.StationServer, Shared):
    """Does that."""

    def add(self, a: int, b: int) -> int:
        """The sum: the honest client's call."""
        return a + b

    def nap(self, seconds: float) -> None:
        """Takes its time; raises ValueError for a negative one."""
        time.sleep(seconds)

    def take(self, data: bytes, files: list[cm.Descriptor]) -> None:
        """Takes all of it."""

    def make(self, size: int, count: int) -> tuple[bytes, list[cm.Descriptor]]:
        """So many bytes, and so many descriptors."""
        return bytes(size), [cm.Descriptor(os.memfd_create("made", os.MFD_CLOEXEC)) for _ in range(count)]


def drop_root(which: int) -> None:
    """Becomes an ordinary user, one for each ``which`` and process; nothing where this process isn't root's.

    Descriptors in flight are counted by user, over the whole machine, and root is free to have any number.
    """
    if os.getuid() == 0:
        user = _FIRST_USER + which * _USERS + os.getpid() % _USERS
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_TABLE, hard), hard))
    logging.basicConfig(filename=os.devnull)
    drop_root(0)
    entrypoint = cm.Entrypoint("shared")
    entrypoint.__enter__()
    cm.parent().cast(processes.Host).offer(entrypoint.manage(SharedServer()))
    processes.await_end()
    # The entrypoint isn't left: how long that takes with what the neighbour left there is not what is measured.
    os._exit(0)


if __name__ == "__main__":
    _main()
