"""As many descriptors in flight as a user may have: in a queue of a test's own, in a process whose limit is low."""

from __future__ import annotations

import contextlib
import os
import socket

import by_hand
from capmarshal._descriptors import reaper
from patience import PATIENCE, until

# The size of the descriptor table, which is what may be in flight.
LIMIT = 64


def as_ordinary(fork, function):
    """What a function returns that an ordinary user runs, whose limit is that low."""
    return fork(function, ordinary=True, table=LIMIT).result()


class Jam:
    """As many descriptors in flight as this user may have, in a queue of our own."""

    def __init__(self):
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)
        try:
            while True:
                by_hand.send(self.near, b"x", [0])
        except OSError as error:
            assert error.errno == 109, error  # ETOOMANYREFS

    def drain(self):
        """Receives it all."""
        self.far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.far.recv(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drain()
        self.near.close()
        self.far.close()


def count_open():
    """How many descriptors are open, where nothing is left to be closed."""
    assert reaper.wait(PATIENCE)
    found = 0
    for number in range(LIMIT):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found += 1
    return found


def surplus(before):
    """How many more are open for good: the server closes a moment after its answer."""
    # Half as long as who waits for this process.
    with contextlib.suppress(AssertionError):
        until(lambda: count_open() <= before, PATIENCE / 2)
    return max(count_open() - before, 0)


def says_whose_limit(error):
    """Whether a TooManyInFlight names user, limit and remedy."""
    words = str(error)
    return all(part in words for part in (f"user {os.getuid()}", str(LIMIT), "RLIMIT_NOFILE", "raise the limit"))
