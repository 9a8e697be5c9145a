"""``capmarshal demo`` in processes of its own, and what the kernel shows of them."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from patience import until

# -P: not the checkout, but the installed package.
DEMO = (sys.executable, "-P", "-m", "capmarshal", "demo")
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}

# The longest that anything here may take that should be done at once.
SOON = 10.0


def run(*arguments, interpreter=sys.executable, **options):
    command = [interpreter, *DEMO[1:], *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, **{"env": ENVIRONMENT, **options})


def children_of(pid):
    """IDs of its child processes that have not ended, the oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # All is read at once: a process may end between two looks.
        with contextlib.suppress(OSError):
            # The name, in parentheses, may contain anything; the time of its start is the 22nd field (proc(5)).
            state, parent, *others = stat.read_text().rpartition(")")[2].split()
            if int(parent) == pid and state != "Z":
                found.append((int(others[17]), int(stat.parent.name)))
    return [child for _, child in sorted(found)]


def command_of(pid):
    """Its arguments; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return []


def find_child(pid, module):
    return next((child for child in children_of(pid) if module in command_of(child)), None)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def holds(pid, path):
    """Whether it has the file open."""
    with contextlib.suppress(OSError):
        return any(os.path.realpath(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


class Running:
    """A demo in the background, in a process group of its own, as a shell would start it."""

    def __init__(self, command):
        # A shell has what it runs in its background ignore Ctrl-C, and that is inherited; a handler is not (execve(2)).
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                process_group=0,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        self.pid = self.process.pid

    @property
    def server(self):
        return until(lambda: find_child(self.pid, b"capmarshal.demo.server"))

    @property
    def client(self):
        return until(lambda: find_child(self.pid, b"capmarshal.demo.client"))

    def ends(self):
        """Exit status, output and complaints."""
        out, err = self.process.communicate(timeout=SOON)
        return self.process.returncode, out, err

    def clear_up(self):
        left = children_of(self.pid)
        self.process.kill()
        self.process.communicate()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
