"""Programs for children, which are spawned with a capability, or not: Python that begins with PROLOGUE."""

import sys
import textwrap

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
