"""The example that runs plugins: what each malicious one attempts is refused, and the host says what became of it."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from confined import confines

pytestmark = confines

HOST = Path(__file__).parents[1] / "examples" / "plugin_host.py"
PLUGINS = sorted((Path(__file__).parent / "plugins").glob("*.py"))
# Some of them for as long as they are let.
SECONDS = 100

# How each ends, and what it has said besides "refused".
ENDS = {
    # As busy as the machine is.
    "eats_cpu": "(ended by SIGXCPU|killed after 10 seconds)",
    "eats_memfds": "ended with 0",
    "eats_memory": "ended with 1: .*MemoryError",
    "ends_by_signal": "ended by signal 40",
    "fails": r"ended with 1: .*\\x1b\[2Jxxx",
    "fills_log": "ended with 1: .*100 lines were written",
    "fills_store": "ended with 1: .*a store has 100 texts",
    "floods_calls": "ended with 1: .*1000 calls were made",
    "fork_bomb": "ended with 0",
    "guesses_badges": "ended with 0",
    "honest": "ended with 0",
    "makes_sockets": "ended with 0",
    "never_answers": "killed after 10 seconds",
    "opens_10000": "ended with 0",
    "reads_files": "ended with 0",
    "shuts_doors": "ended with 0",
    "traces": "ended with 0",
    "writes_terminal": "ended with 0",
}


def _run(python, place, *plugins):
    command, options = python
    ended = subprocess.run(
        [command, str(HOST), "papers", *map(str, plugins)],
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        **options,
    )
    # What its clients do wrong, it logs.
    said = [line for line in ended.stderr.splitlines() if not line.startswith("host: ")]
    assert (ended.returncode, said) == (0, [])
    return ended.stdout.splitlines()


@pytest.fixture(scope="module")
def place():
    """A directory that an ordinary user may write in."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    (made / "papers").mkdir()
    (made / "papers" / "letter").write_text("Dear Sir")
    (made / "papers").chmod(0o755)
    (made / "papers" / "letter").chmod(0o644)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def printed(ordinary_python, place):
    """What the host prints that runs all of them, beside each other."""
    return _run(ordinary_python, place, *PLUGINS)


def test_each_plugin_has_an_end_that_is_known():
    """One that is added is expected to end in some way."""
    assert sorted(ENDS) == [path.stem for path in PLUGINS]


@pytest.mark.parametrize("name", ENDS)
def test_what_a_plugin_attempts_fails_and_the_host_says_how_it_ended(printed, name):
    """The plugin's own words are in its log, each line with its name."""
    own = [line.removeprefix(f"{name}: ") for line in printed if line.startswith(f"{name}: ")]
    ends = [line.removeprefix(f"{name} ") for line in printed if line.startswith(f"{name} ")]
    assert not [line for line in own if "HARM" in line]
    assert len(ends) == 1
    assert re.fullmatch(f"{ENDS[name]}.*", ends[0]), ends
    assert max(map(len, printed)) < 1000


def test_the_host_and_the_honest_one_go_on(printed, place, ordinary_python):
    """Beside all of them, and after; its store is there the next time."""
    assert "honest: run 1: 2 words in letter" in printed
    assert printed[-1] == "the host goes on"
    assert _run(ordinary_python, place, Path(__file__).parent / "plugins" / "honest.py") == [
        "honest: run 2: 2 words in letter",
        "honest ended with 0",
        "the host goes on",
    ]


def test_what_cannot_be_run_is_told(place, ordinary_python):
    """And is no end of the host's."""
    first, last = _run(ordinary_python, place, "nowhere.py")
    assert first.startswith("nowhere cannot be run: [Errno 2] No such file")
    assert last == "the host goes on"
