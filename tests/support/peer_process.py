"""A Python process of its own, started afresh, that runs one function of a test; the fixture run_peer makes them."""

from __future__ import annotations

import inspect
import select
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from patience import PATIENCE

# What the source of a peer's function finds imported.
_SOURCE = """\
import contextlib, gc, os, signal, socket, sys, threading
import capmarshal as cm
from capmarshal import Descriptor, Message
from capmarshal._kernel.errors import CallTimeout, Disconnected

# Ignored, where the tests run in a shell's background.
signal.signal(signal.SIGINT, signal.default_int_handler)

{function}
with contextlib.ExitStack() as _stack:
    {name}({arguments})
"""


class Peer:
    """A Python process of its own, that runs one function."""

    def __init__(self, function, *arguments):
        inherited = [argument.fileno() for argument in arguments if isinstance(argument, socket.socket)]
        passed = [
            f"_stack.enter_context(socket.socket(fileno={a.fileno()}))" if isinstance(a, socket.socket) else repr(a)
            for a in arguments
        ]
        source = _SOURCE.format(
            function=textwrap.dedent(inspect.getsource(function)), name=function.__name__, arguments=", ".join(passed)
        )
        # -I: neither the environment nor the working directory decides what is imported.
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-W", "error", "-c", source],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.finished = False

    @property
    def pid(self):
        return self.process.pid

    def line(self):
        """The next line that the peer prints, once it comes."""
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, "the peer printed nothing"
        return self.process.stdout.readline().rstrip("\n")

    def asleep(self):
        """Whether the peer, a process of one thread, waits in a system call."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def finish(self, *, code=0, stderr=""):
        """What the peer printed since; its exit code and its stderr are as said.

        Args:
            code: a negative one is the number of the signal that killed it.
            stderr: exactly this, or None: whatever it printed.
        """
        self.finished = True
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            pytest.fail(f"the peer did not finish; it printed:\n{out}\n{err}", pytrace=False)
        assert (self.process.returncode, err if stderr is not None else None) == (code, stderr), err
        return out

    def kill(self):
        """SIGKILL, and collects it."""
        self.finished = True
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)
