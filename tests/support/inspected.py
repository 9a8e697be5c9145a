"""``capmarshal inspect`` in a process of its own, and what it says of the processes of a test."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys

import capmarshal as cm
from child_program import python
from patience import PATIENCE

# -P: not the checkout, but the installed package.
INSPECT = (sys.executable, "-P", "-m", "capmarshal", "inspect")


def told(*arguments, code=0, stderr="", command=INSPECT, **options):
    """What it prints; its exit status and its complaints are as said."""
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )
    assert (done.returncode, done.stderr) == (code, stderr)
    return done.stdout


def seen(*pids, **options):
    """The same as data: of these processes, or else of this one."""
    return json.loads(told("--json", *(pids or [os.getpid()]), **options))


def entrypoint(view, label):
    """The one that is called so."""
    (found,) = [each for each in view["entrypoints"] if each["door"] and each["door"]["label"] == label]
    return found


def holders(door):
    """Who holds it: by process, under how many descriptors."""
    return {each["pid"]: each["descriptors"] for each in door["holders"]}


def process(view, pid):
    """What is said of one."""
    (found,) = [each for each in view["processes"] if each["pid"] == pid]
    return found


@contextlib.contextmanager
def child(program, parent):
    """One that was given a capability, and has printed a line.

    Args:
        program: what follows the prologue of all such children, or arguments of Python's.
        parent: the capability.
    """
    command = python(program) if isinstance(program, str) else [sys.executable, "-I", *program]
    with cm.spawn(command, parent=parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout.readline() == "here\n"
            yield started
        finally:
            started.kill()


# What the children of most tests do: the same, but for what they do before.
HOLD = "\nprint('here', flush=True)\nsys.stdin.read()\n"


def on_a_terminal(*arguments, command=INSPECT):
    """(exit status, what a terminal is sent), of 200 columns."""
    own, its = pty.openpty()
    environment = os.environ | {"COLUMNS": "200", "LINES": "50", "TERM": "xterm-256color"}
    with open(own, "rb", buffering=0) as screen:
        try:
            started = subprocess.Popen(
                [*command, *map(str, arguments)], stdin=its, stdout=its, stderr=its, env=environment
            )
        finally:
            os.close(its)
        with started:
            text = b""
            # The terminal's end is EIO, when nobody has it open any more.
            with contextlib.suppress(OSError):
                while more := screen.read(1 << 16):
                    text += more
        return started.returncode, text.decode()
