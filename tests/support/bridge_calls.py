"""Calls through bridges without end, and what is true of each whatever is killed, stopped and parted meanwhile.

Each has a number, and the server counts by it: so what its caller was told is compared with what has run.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time

import capmarshal as cm
from patience import PATIENCE, until


class Counted(cm.Interface):
    """What is called."""

    @cm.method
    def run(self, number: int) -> int: ...

    @cm.method
    def wait(self, number: int) -> int: ...


class Server(Counted):
    """Serves it, in the process of the test.

    Attributes:
        ran: how often, by number.
        released: set by the test: what waits returns.
    """

    def __init__(self):
        self.ran = collections.Counter()
        self.released = threading.Event()

    def run(self, number):
        self.ran[number] += 1
        return number

    def wait(self, number):
        self.ran[number] += 1
        assert self.released.wait(PATIENCE)
        return number


class Calls:
    """Callers in threads, each with one call after the other.

    Attributes:
        told: what each call came to, by its number: "answered", "no", "maybe" or "late".
    """

    def __init__(self, connect, server, *, callers=8, timeout=None, first=1):
        """Begun by entering it, and ended by leaving it.

        Args:
            connect: gives the capability that is called; asked again when that is gone.
            server: the one behind it.
            callers: how many there are.
            timeout: seconds that each call may take.
            first: the number of the first call.
        """
        self.told = {}
        # Numbers of those that were answered: threads may append beside each other, and its length is known at once.
        self._answered = []
        self._connect, self._server, self._timeout = connect, server, timeout
        self._numbers = itertools.count(first)
        self._go_on = True
        self._failed = []
        self._threads = [threading.Thread(target=self._make) for _ in range(callers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self._go_on = False
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads), "a call hangs"

    def more(self, count=100):
        """Returns when so many more were answered."""
        wanted = len(self._answered) + count
        until(lambda: self._failed or len(self._answered) >= wanted)
        assert not self._failed, self._failed

    def check(self):
        """What is true of all of them; how many came to what."""
        assert not self._failed, self._failed
        ran = self._server.ran
        assert all(count == 1 for count in ran.values()), [number for number, count in ran.items() if count > 1]
        for number, told in self.told.items():
            if told == "answered":
                assert ran[number] == 1, number
            elif told == "no":
                assert not ran[number], number
        return collections.Counter(self.told.values())

    def _make(self):
        try:
            counted = self._connected()
            while self._go_on:
                number = next(self._numbers)
                told = self._one(counted, number)
                self.told[number] = told
                if told == "answered":
                    self._answered.append(number)
                if told in ("no", "maybe"):
                    counted = self._connected() or counted
        except BaseException as error:
            self._failed.append(repr(error))
            raise

    def _one(self, counted, number):
        try:
            with cm.timeout(self._timeout):
                assert counted.run(number) == number
        except cm.CallTimeout:
            return "late"
        except cm.Disconnected as error:
            return error.ran
        return "answered"

    def _connected(self):
        """What is called; None where the test has ended before it could be reached."""
        while True:
            try:
                return self._connect().cast(Counted)
            except cm.Disconnected:
                if not self._go_on:
                    return None
                time.sleep(0.01)  # a poll: what is killed tells nobody when there is another one
