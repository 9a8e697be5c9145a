"""The example that runs plugins: what each malicious one attempts is refused, and the host says what became of it."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from confined import confines
from patience import PATIENCE

pytestmark = confines

EXAMPLES = Path(__file__).parents[1] / "examples"
PLUGINS = sorted((Path(__file__).parent / "plugins").glob("*.py"))
SECONDS = 100
# The host, which gives plugins so many seconds: as busy as the machine is, those that end are to end by themselves.
START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import plugin_host
plugin_host.SECONDS = int(sys.argv.pop(1))
plugin_host.main(*sys.argv[1:])
"""

# How each ends, in the host's words.
KILLED = "killed after 10 seconds"
ENDS = {
    "eats_cpu": "ended by SIGXCPU",
    "eats_memfds": "ended with 0",
    "eats_memory": "ended with 1",
    "ends_by_signal": "ended by signal 40",
    "fails": "ended with 1",
    "fills_errors": KILLED,
    "fills_log": "ended with 1; refused: 100 lines were written",
    "fills_store": "ended with 1; refused: a store has 100 texts of 10000 characters, with keys of 200",
    "floods_calls": "ended with 1; refused: 1000 calls were made",
    "floods_doors": "ended with 0",
    "fork_bomb": "ended with 0",
    "guesses_badges": "ended with 0",
    "honest": "ended with 0",
    "ignores_refusals": "ended with 0; refused: 1000 calls were made",
    "makes_sockets": "ended with 0",
    "never_answers": KILLED,
    "opens_10000": "ended with 0",
    "reads_files": "ended with 0",
    "sends_much": "ended with 0",
    "shuts_doors": "ended with 0",
    "starts_threads": "ended with 0",
    "stops": KILLED,
    "traces": "ended with 0",
    "writes_terminal": "ended with 0",
}
# What each says by itself, or Python does for it, among other lines.
WORDS = {
    "eats_memfds": "refused: a terabyte",
    "eats_memory": "MemoryError",
    "fills_errors": r"honest ended with 7|\\x1b\[2J",
    "fails": r"ValueError: \\x1b\[2Jx+",
    "fills_log": r"one\\nhonest ended with 7",
    "fork_bomb": "refused: exec",
    "guesses_badges": "refused: all guesses",
    "makes_sockets": "refused: socketpair",
    "opens_10000": "refused: in flight, few",
    "reads_files": "refused: by the folder",
    "sends_much": "refused: 40 MiB",
    "shuts_doors": "goes on",
    "starts_threads": "refused: threads",
    "traces": "refused: affinity",
    "writes_terminal": "refused: the terminal",
}


def _run(python, place, *plugins, directory="papers", seconds=SECONDS - 10):
    command, options = python
    ended = subprocess.run(
        [command, "-P", "-c", START, str(place / "examples"), str(seconds), directory, *map(str, plugins)],
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
def place(python):
    """A directory that an ordinary user may write in, with the example and the plugins: the checkout may be root's."""
    made = Path(tempfile.mkdtemp())
    shutil.copytree(EXAMPLES, made / "examples")
    shutil.copytree(PLUGINS[0].parent, made / "plugins")
    (made / "papers").mkdir()
    (made / "papers" / "letter").write_text("Dear Sir")
    subprocess.run(["chmod", "-R", "a+rX", made], check=True)
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def printed(python, place):
    """What the host prints that runs all of them, beside each other: first those that it has to end."""
    lasting = [f"plugins/{name}.py" for name, end in ENDS.items() if end == KILLED]
    others = [f"plugins/{name}.py" for name, end in ENDS.items() if end != KILLED]
    *ended, last = _run(python, place, *lasting, seconds=10)
    assert last == "the host goes on"
    return ended + _run(python, place, *others)


def test_each_plugin_has_an_end_that_is_known():
    """One that is added is expected to end in some way."""
    assert sorted(ENDS) == [path.stem for path in PLUGINS]


@pytest.mark.parametrize("name", ENDS)
def test_what_a_plugin_attempts_fails_and_the_host_says_how_it_ended(printed, name):
    """The plugin's own words are behind its name and a colon, in the log and of its standard error."""
    own = [line.removeprefix(f"{name}: ") for line in printed if line.startswith(f"{name}: ")]
    ends = [line.removeprefix(f"{name} ") for line in printed if line.startswith(f"{name} ")]
    assert not [line for line in own if "HARM" in line]
    assert len(ends) == 1
    assert re.fullmatch(ENDS[name], ends[0]), ends
    assert name not in WORDS or [line for line in own if re.fullmatch(WORDS[name], line)], own
    assert len(own) <= 102
    assert max(map(len, own), default=0) <= 200


def test_all_that_is_printed_is_somebodys(printed):
    """A plugin writes no line that is the host's, or another plugin's."""
    names = "|".join(ENDS)
    assert not [line for line in printed[:-1] if not re.match(f"({names})(: | ended | killed )", line)]


def test_the_host_and_the_honest_one_go_on(printed, place, python):
    """Beside all of them, and after; its store is there the next time."""
    assert "honest: run 1: 2 words in letter" in printed
    assert printed[-1] == "the host goes on"
    assert _run(python, place, "plugins/honest.py") == [
        "honest: run 2: 2 words in letter",
        "honest ended with 0",
        "the host goes on",
    ]


def test_what_cannot_be_run_is_told(place, python):
    """And is no end of the host's."""
    first, last = _run(python, place, "nowhere.py")
    assert first.startswith("nowhere cannot be run: [Errno 2] No such file")
    assert last == "the host goes on"


def _plugin(place, name, source):
    """A plugin of a test's own, as a path."""
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("import capmarshal as cm\nfrom host_api import Host\nhost = cm.parent().cast(Host)\n" + source)
    return path


LOOKS_ROUND = """
import os
folder, say = host.folder(), host.log().write
say(repr(folder.names()))
for name in ("link", "fifo", "directory", "socket", ".", "..", "", "../plugins.sqlite", "/etc/passwd", "a\\0b"):
    try:
        folder.open(name)
        say(f"HARM: {name!r}")
    except FileNotFoundError:
        say("refused")
with folder.open("huge") as huge, folder.open("grows") as grows:
    say(f"{os.fstat(huge.fileno()).st_size} {os.pread(huge.fileno(), 9, 1 << 39) == bytes(9)}")
    for way in (lambda: open(f"/proc/self/fd/{grows.fileno()}", "r+b"), lambda: os.ftruncate(grows.fileno(), 0)):
        try:
            way()
            say("HARM: it writes")
        except OSError:
            say("refused")
"""


def test_a_folder_is_its_files_and_nothing_beside(place, python):
    """No links, FIFOs, directories, nor what a path leads to from there; a huge file costs the host nothing."""
    odd = place / "odd"
    odd.mkdir()
    (odd / "link").symlink_to("/etc/passwd")
    os.mkfifo(odd / "fifo")
    (odd / "directory").mkdir()
    (odd / "two\nlines").touch()
    Path(os.fsdecode(os.fsencode(odd) + b"/no\xfftext")).touch()
    (odd / "grows").write_text("x")
    with socket.socket(socket.AF_UNIX) as listening, open(odd / "huge", "wb") as huge:
        listening.bind(str(odd / "socket"))
        huge.truncate(1 << 40)
    odd.chmod(0o755)
    lines = _run(python, place, _plugin(place, "looks.py", LOOKS_ROUND), directory="odd")
    assert lines == [
        "looks: ['grows', 'huge']",
        *["looks: refused"] * 10,
        f"looks: {1 << 40} True",
        *["looks: refused"] * 2,
        "looks ended with 0",
        "the host goes on",
    ]


STORES = """
store, say = host.store(), host.log().write
say(repr(store.get("own")))
for key, text in (("a\\0b\\n", "\\0\\n\\u2028"), ("", "")):
    store.put(key, text)
    assert store.get(key) == text
for number in range(98):
    store.put(str(number), "x")
store.put("0", "is there already")
for key, text in (("one more", ""), ("k" * 201, ""), ("0", "x" * 10_001)):
    try:
        store.put(key, text)
        say("HARM: kept")
    except PermissionError:
        say("refused")
"""


KEEPS = """
host.log().write(repr(host.store().get("own")))
host.store().put("own", "there")
"""


def test_a_store_is_one_plugins_own(place, python):
    """Whatever another one, or another one of its name, has put there; keys and texts have bounds."""
    kept = _plugin(place, "one/keeps.py", KEEPS)
    assert _run(python, place, kept)[0] == "keeps: None"
    assert _run(python, place, kept)[0] == "keeps: 'there'"
    assert _run(python, place, _plugin(place, "two/keeps.py", KEEPS))[0] == "keeps: None"
    assert _run(python, place, _plugin(place, "stores.py", STORES)) == [
        "stores: None",
        *["stores: refused"] * 3,
        "stores ended with 0; refused: a store has 100 texts of 10000 characters, with keys of 200",
        "the host goes on",
    ]


@pytest.mark.parametrize("plugins", [["a/x.py", "b/x.py"], ["x ended with 0.py"], ["x\n.py"], ["x: .py"], [""]])
def test_plugins_that_could_be_taken_for_others_are_refused(place, python, plugins):
    """By their names, before one of them is run."""
    command, options = python
    host = [command, str(place / "examples" / "plugin_host.py"), "papers", *plugins]
    ended = subprocess.run(host, cwd=place, capture_output=True, text=True, timeout=SECONDS, check=False, **options)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("plugins have names of their own")


def test_ctrl_c_ends_the_plugins_with_their_host(place, python):
    """Their sessions are others, so that nobody else tells them."""
    plugin = _plugin(place, "sleeps.py", "import os, time\nhost.log().write(str(os.getpid()))\ntime.sleep(1000)")
    command, options = python
    host = [command, str(place / "examples" / "plugin_host.py"), "papers", str(plugin)]
    with subprocess.Popen(host, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options) as running:
        sleeping = os.pidfd_open(int(running.stdout.readline().removeprefix(b"sleeps: ")))
        try:
            running.send_signal(signal.SIGINT)
            ended, _, _ = select.select([sleeping], [], [], PATIENCE)
            said = running.stdout.read()
        finally:
            os.close(sleeping)
            running.kill()
    # At once, and not when its time was over.
    assert (bool(ended), said) == (True, b"")
