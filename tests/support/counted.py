"""Streams that tell how many items were made, and how many of the streams are closed; and which of them are served."""

from __future__ import annotations

import threading

from capmarshal._descriptors import reaper
from patience import PATIENCE, until
from telling import settled

ENDLESS = 10**9


class Counted:
    """Gives such, of a method that blocks."""

    def __init__(self):
        self.made = self.closed = 0

    def count(self, upto):
        try:
            for number in range(upto):
                self.made += 1
                yield number
        finally:
            self.closed += 1


class AwaitedCounted:
    """Likewise, where the items are awaited."""

    def __init__(self):
        self.made = self.closed = 0

    async def count(self, upto):
        try:
            for number in range(upto):
                self.made += 1
                yield number
        finally:
            self.closed += 1


class Lines:
    """Makes generators, to be passed, and notes which are closed, and in which threads they ran."""

    def __init__(self):
        self.closed, self.made, self.threads = 0, 0, set()

    def __call__(self, how_many=ENDLESS, error=None):
        try:
            for number in range(how_many):
                self.made += 1
                self.threads.add(threading.get_ident())
                yield f"line {number}"
            if error is not None:
                raise error("mine")
        finally:
            self.closed += 1

    async def awaited(self, how_many=ENDLESS):
        try:
            for number in range(how_many):
                self.made += 1
                yield f"line {number}"
        finally:
            self.closed += 1

    def end(self, count=1):
        """Returns once so many are closed."""
        until(lambda: self.closed == count)


class AwaitedLines(Lines):
    """Likewise, to an event loop."""

    __call__ = Lines.awaited

    async def end(self, count=1):
        """As there."""
        await settled(lambda: self.closed == count)


def threads_of_streams():
    """The names of the threads that serve streams which were passed."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("capmarshal stream of ")]


def wait_for_streams_to_end():
    """Returns once none is served by a thread, nor holds a descriptor."""
    until(lambda: not threads_of_streams())
    assert reaper.wait(PATIENCE)
