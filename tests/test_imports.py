"""What is imported when: every process that holds a capability pays for ``import capmarshal`` at its start."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import capmarshal
from capmarshal import _CALLING

PATIENCE = 30

# Neither imported, nor needed by a call.
NEVER = (
    "anyio",
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "hashlib",
    "importlib.metadata",
    "inspect",
    "json",
    "multiprocessing",
    "pathlib",
    "random",
    "secrets",
    "ssl",
    "subprocess",
    "tempfile",
)

# Of what calling and serving takes, and holding does not.
ONLY_FOR_CALLS = (
    "capmarshal._client",
    "capmarshal._server",
    "capmarshal._typed",
    "datetime",
    "decimal",
    "logging",
    "msgspec",
)

# Not the interpreter's own imports: without site, since the finder of an editable installation imports much.  msgspec
# takes typing_extensions where it finds it, and that imports inspect.
HEAD = """
import sys
sys.path[:] = {path!r}
sys.modules["typing_extensions"] = None
import capmarshal as cm
"""

# Imported without harm: a log is needed when something is wrong, and then an import might fail, too.
LOGGING = HEAD.replace("import capmarshal as cm", "import logging")

CALL = """
class Adder(cm.Interface):
    @cm.method
    def add(self, a: int, b: int) -> int: ...

class AdderServer(Adder):
    def add(self, a: int, b: int) -> int:
        return a + b

with cm.Entrypoint("adder") as entrypoint, cm.timeout(30):
    assert entrypoint.manage(AdderServer()).cast(Adder).add(1, 2) == 3
"""


def imported(program, head=HEAD):
    """The names of all modules that a fresh interpreter has imported at the end of ``program``."""
    path = [str(Path(capmarshal.__file__).parent.parent), *sys.path]
    script = head.format(path=path) + program + "print(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], timeout=PATIENCE, capture_output=True, text=True, check=True
    )
    return finished.stdout.split()


@pytest.fixture(scope="module")
def by_import():
    return imported("")


@pytest.fixture(scope="module")
def by_call():
    return imported(CALL)


@pytest.fixture(scope="module")
def by_logging():
    """What the standard library's own logging needs: from Python 3.14 on, dataclasses and inspect, by traceback."""
    return imported("", LOGGING)


def test_the_import_is_seen(by_import, by_call):
    """The tests below would pass if nothing at all had been imported."""
    assert {"capmarshal", "capmarshal._capabilities.space", "capmarshal._descriptors.message"} <= set(by_import)
    assert {"capmarshal._client.proxy", "capmarshal._server.loop", *ONLY_FOR_CALLS} <= set(by_call)


@pytest.mark.parametrize("module", [*NEVER, *ONLY_FOR_CALLS])
def test_not_imported(by_import, module):
    """Whoever needs it imports it."""
    assert module not in by_import


@pytest.mark.parametrize("module", NEVER)
def test_not_needed_by_a_call(by_call, by_logging, module):
    """Nor is it only put off until the first call, made and served."""
    assert module not in set(by_call) - set(by_logging)


@pytest.mark.parametrize("name", sorted(_CALLING))
def test_who_has_one_of_these_names_needs_no_import_any_more(by_call, name):
    """In a sandbox, with a full descriptor table, in a forked child, at the end there may be none."""
    before = imported(f"cm.{name}\n")
    assert {"capmarshal._client.proxy", "capmarshal._server.loop"} <= set(before)
    assert not set(by_call) - set(before)


def test_all_names_are_there_for_whoever_lists_or_takes_them():
    """Also for completion, and ``from capmarshal import *``."""
    program = """
assert {*cm.__all__} <= {*dir(cm)}
del cm
from capmarshal import *
assert Entrypoint.__module__ == Interface.__module__ == "capmarshal"
"""
    assert "capmarshal._calling" in imported(program)


@pytest.mark.parametrize("name", sorted(_CALLING))
def test_a_pickle_finds_what_has_not_been_imported_yet(name):
    """By its name, as multiprocessing and concurrent.futures do."""
    program = f"import pickle\nassert pickle.loads({pickle.dumps(getattr(capmarshal, name))!r}) is cm.{name}\n"
    assert "capmarshal._calling" in imported(program)


def test_who_forgot_to_import_aio_is_told_so():
    """It is imported by nobody else, for it needs anyio; how to have that is said too."""
    program = """
import capmarshal as cm

try:
    cm.aio.Entrypoint
except AttributeError as error:
    words = str(error)
else:
    raise AssertionError
assert not hasattr(cm, "aio")
assert words.startswith("module 'capmarshal' has no attribute 'aio' unless that is imported"), words
assert "`from capmarshal import aio`" in words and "pip install 'anyio>=4.7'" in words, words
"""
    assert "capmarshal.aio" not in imported(program)


def test_no_other_name_is_made_up():
    """The error is that of any module."""
    with pytest.raises(AttributeError, match="module 'capmarshal' has no attribute 'Interfaces'"):
        _ = capmarshal.Interfaces


@pytest.mark.parametrize("module", ["capmarshal.__main__", "capmarshal.demo"])
def test_commands_are_not_imported(by_call, module):
    """The command and the demo are programs that use the package."""
    assert module not in by_call


def test_ctrl_c_is_raised_by_the_import_that_it_comes_in():
    """Not lost, nor the death of the interpreter: msgspec does not look whether datetime has come."""
    program = """
import importlib.util, signal

there = importlib.util.find_spec("datetime").origin

def interrupt(frame, event, argument):
    if frame.f_code.co_filename == there:
        sys.settrace(None)
        signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.settrace(interrupt)
try:
    cm.Entrypoint
except KeyboardInterrupt:
    print("raised")
"""
    assert "raised" in imported(program)


def test_what_errors_say_to_install_is_what_the_extras_are():
    """Each brings what whoever lacks it is told to install: the package itself need not be on an index."""
    package = Path(capmarshal.__file__).parent
    told = [re.findall(r"pip install ((?:'[\w>=.-]+' ?)+)", path.read_text()) for path in package.rglob("*.py")]
    requirements = {re.sub(r"\s*;.*", "", line) for line in metadata.requires("capmarshal")}
    found = {each for words in told for some in words for each in re.findall(r"'([^']+)'", some)}
    assert found
    assert found <= requirements
