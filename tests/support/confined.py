"""Confined processes, whose parent is an ordinary user: what they run, and what they say."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

import capmarshal as cm
from child_program import registry
from patience import PATIENCE

# For the files that are about confining; and for those all of whose tests confine, which need all of its parts.
not_sanitized = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer comes by the environment, which a confined process has not",
)

confines = [not_sanitized, pytest.mark.usefixtures("confinable")]

# Says which parts are missing on this machine, in a line, and then why.
_ATTEMPT = """
import capmarshal as cm
try:
    cm.confine(cm.Confinement())
except cm.NotConfined as error:
    print(*error.missing)
    print(error)
"""


@functools.cache
def _missing_here():
    command = [sys.executable, "-P", "-c", _ATTEMPT]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True)
    parts, _, words = done.stdout.partition("\n")
    return parts.split(), words.rstrip()


def skip_without(*parts):
    """Skips the test where one of these parts of confinement is missing on this machine."""
    missing, words = _missing_here()
    if {*missing} & {*parts}:
        pytest.skip(words)


# What every confined file begins with.  What it finds out is said by say(), as JSON, one line each.
PROLOGUE = """\
import capmarshal as cm
import json, os, sys

def say(*things):
    for thing in things:
        print(json.dumps(thing), flush=True)

def outcome(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__

class Registry(cm.Interface):
    @cm.method
    def tell(self, what: str) -> int: ...

def tell(what):
    with cm.timeout(30):
        return cm.parent().cast(Registry).tell(what)

"""


class Host:
    """An ordinary process that confines others.

    Attributes:
        place: a directory of its own.
        capability: of a registry, which is what its children are given.
        told: what they have told it.
    """

    def __init__(self, place, capability, told):
        self.place, self.capability, self.told = place, capability, told

    def file(self, source, name="plugin.py"):
        """A file of Python."""
        path = self.place / name
        path.write_text(PROLOGUE + textwrap.dedent(source))
        return path

    def start(self, source, *arguments, name="plugin.py", **options):
        """A process that runs it; ``options`` are those of Confinement, and of spawn()."""
        own = {each: options.pop(each) for each in cm.Confinement.__slots__ if each in options}
        command = [self.file(source, name), *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return cm.spawn(command, parent=self.capability, confine=cm.Confinement(**own), **options)

    def said(self, source, *arguments, code=0, errors=b"", **options):
        """What it has said."""
        with self.start(source, *arguments, **options) as child:
            try:
                out, complaints = child.communicate(timeout=PATIENCE)
            finally:
                child.kill()
        assert (child.returncode, complaints) == (code, errors), (child.returncode, out, complaints.decode())
        return [json.loads(line) for line in out.splitlines()]


@contextlib.contextmanager
def _host():
    # Not one of the test's own: these are root's.
    place = Path(tempfile.mkdtemp())
    try:
        with registry() as (target, capability):
            yield Host(place, capability, target.told)
    finally:
        shutil.rmtree(place)


def in_host(fork, ordinary_python, act):
    """What ``act(host)`` returns in an ordinary process."""

    def child():
        os.chdir("/")
        # What runs the launcher: this process's own may be root's alone.
        sys.executable = ordinary_python[0]
        with _host() as host:
            return act(host)

    return fork(child, ordinary=True).result()
