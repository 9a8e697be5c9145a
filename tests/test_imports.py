"""What ``import capmarshal`` does not import, since every process that holds a capability pays for it at its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import capmarshal

PATIENCE = 30

# Neither imported, nor needed by a call.
NEVER = (
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "hashlib",
    "importlib.metadata",
    "inspect",
    "multiprocessing",
    "pathlib",
    "random",
    "secrets",
    "ssl",
    "subprocess",
    "tempfile",
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


def test_the_import_is_seen(by_import):
    """The tests below would pass if nothing at all had been imported."""
    assert {"capmarshal", "capmarshal._server.loop", "typing", "msgspec"} <= set(by_import)


@pytest.mark.parametrize("module", NEVER)
def test_not_imported(by_import, by_logging, module):
    """Whoever needs it imports it."""
    assert module not in set(by_import) - set(by_logging)


@pytest.mark.parametrize("module", NEVER)
def test_not_needed_by_a_call(by_call, by_logging, module):
    """Nor is it only put off until the first call, made and served."""
    assert module not in set(by_call) - set(by_logging)


@pytest.mark.parametrize("module", ["capmarshal.__main__", "capmarshal.demo"])
def test_commands_are_not_imported(by_import, module):
    """The command and the demo are programs that use the package."""
    assert module not in by_import
