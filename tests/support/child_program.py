"""Programs for children, which are spawned with a capability, or not: Python that begins with PROLOGUE."""

import contextlib
import subprocess
import sys
import textwrap

import capmarshal as cm
from patience import PATIENCE

# What every child's program begins with.  The interface is declared again, as a program of its own would import it.
PROLOGUE = """\
import capmarshal as cm
import json, os, subprocess, sys

class Registry(cm.Interface):
    @cm.method
    def tell(self, what: str) -> int: ...

def tell(what):
    with cm.timeout(30):
        return cm.parent().cast(Registry).tell(what)

def descriptors():
    listed = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            listed[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return listed

"""


def python(program, *arguments):
    """The command that runs ``program``, isolated from the environment and the working directory."""
    return [sys.executable, "-I", "-W", "error", "-c", PROLOGUE + textwrap.dedent(program), *arguments]


class Registry(cm.Interface):
    """What children call."""

    @cm.method
    def tell(self, what: str) -> int: ...


class RegistryServer(Registry):
    """Keeps what they tell."""

    def __init__(self):
        self.told = []

    def tell(self, what):
        self.told.append(what)
        return len(self.told)


@contextlib.contextmanager
def registry():
    """(object, capability) of one that a thread serves."""
    target = RegistryServer()
    with cm.Entrypoint("registry") as entrypoint:
        yield target, entrypoint.manage(target)


def ran(command, parent=None, **options):
    """What a child printed, a spawned one or an ordinary one; it ends well and says nothing on stderr."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    child = subprocess.Popen(command, **options) if parent is None else cm.spawn(command, parent=parent, **options)
    try:
        out, errors = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
        child.wait(PATIENCE)
    assert (child.returncode, errors) == (0, "")
    return out.strip()
