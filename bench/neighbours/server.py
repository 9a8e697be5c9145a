"""The server that the honest client and its neighbour share."""

import logging
import os
import resource

import capmarshal as cm
from bench import processes
from bench.servers import works_of

# The default of most machines.
_TABLE = 1024
_FIRST_USER, _USERS = 20_000, 20_000


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
    cm.parent().cast(processes.Host).offer(entrypoint.manage(works_of(entrypoint)))
    processes.await_end()
    # The entrypoint isn't left: how long that takes with what the neighbour left there is not what is measured.
    os._exit(0)


if __name__ == "__main__":
    _main()
