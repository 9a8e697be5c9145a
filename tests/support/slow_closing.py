"""What is slow to close, and what is not, for tests of who closes it when."""

from __future__ import annotations

import fcntl
import os
import threading

from capmarshal import Descriptor
from patience import PATIENCE


def is_open(number):
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def has_seals(path):
    """Whether a file is one of tmpfs, which is closed on the spot whatever is known of mounts."""
    with Descriptor(os.open(path, os.O_RDONLY)) as file:
        return number_has_seals(file.fileno())


def number_has_seals(number):
    """Likewise of an open file, or a memfd."""
    try:
        fcntl.fcntl(number, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


def pipe_end():
    """A descriptor that is the reaper's to close."""
    reader, writer = os.pipe()
    os.close(writer)
    return Descriptor(reader)


class Slow:
    """Its close() waits until it may; the descriptor that it may have is the test's own."""

    def __init__(self, name="", log=None, number=-1):
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.name, self.log, self._number = name, log, number

    def fileno(self):
        if self._number < 0:
            raise OSError("it has none")
        return self._number

    def close(self):
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        if self.log is not None:
            self.log.append(self.name)
