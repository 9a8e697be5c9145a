"""``capmarshal bridge`` in processes of their own, and what they say."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import time

from commands import COMMAND
from patience import PATIENCE


class Said:
    """What a process writes to a pipe, read as it comes."""

    def __init__(self, pipe):
        self._pipe = pipe
        self.text = ""

    def until(self, words, times=1):
        """Reads on until these stand there so often."""
        deadline = time.monotonic() + PATIENCE
        while self.text.count(words) < times:
            ready, _, _ = select.select([self._pipe], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{words!r} is not in {self.text!r}"
            part = os.read(self._pipe.fileno(), 1 << 16)
            assert part, f"it ended without {words!r}: {self.text!r}"
            self.text += part.decode()

    def end(self):
        """Reads on to the end."""
        self.text += self._pipe.read().decode()


class Process:
    """One that runs.

    Attributes:
        out, err: what it says.
        pid: its own.
    """

    def __init__(self, process):
        self._process = process
        self.out, self.err = Said(process.stdout), Said(process.stderr)
        self.pid = process.pid

    def ready(self):
        """Waits until it is; gives itself."""
        self.err.until(" is ready\n")
        return self

    def tell(self, text):
        """Gives it that on standard input, and no more."""
        self._process.stdin.write(text.encode())
        self._process.stdin.close()

    def table(self):
        """(soft, hard) limit of its descriptors."""
        return resource.prlimit(self.pid, resource.RLIMIT_NOFILE)

    def tokens(self, count=1):
        """So many lines of tokens: (token, path) of each."""
        self.out.until("\n", count)
        return [tuple(line.split(" ", 1)) for line in self.out.text.splitlines()]

    def send(self, number):
        """Sends it a signal."""
        self._process.send_signal(number)

    def kill(self):
        """As a machine that loses its power."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def end(self, number=signal.SIGTERM):
        """Its exit status after a signal."""
        self.send(number)
        return self.status()

    def status(self):
        """Its exit status, when it ends."""
        status = self._process.wait(PATIENCE)
        self.out.end()
        self.err.end()
        return status


@contextlib.contextmanager
def bridge(*words, before=(), **options):
    """The command with these words behind ``bridge``, as a process that is killed with the block.

    Args:
        words: of the command line.
        before: words that stand before the command.
        options: of Popen.
    """
    command = [*before, *COMMAND, "bridge", *map(str, words)]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command, **options) as process:
        try:
            yield Process(process)
        finally:
            process.kill()
