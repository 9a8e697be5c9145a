"""What docs/confinement.md shows works as it stands there."""

import os
import re
import signal
import subprocess
import sys

import pytest

from capmarshal._child.confinement import PARTS
from confined import confines
from documents import Reader, fenced, read
from patience import PATIENCE

pytestmark = confines

PAGE = read("docs/confinement.md")
INTERFACE, HOST, *_ = fenced(PAGE)


def _write(tmp_path, host, plugin):
    """The command that runs the host."""
    (tmp_path / "api").mkdir()
    (tmp_path / "host.py").write_text(host, encoding="utf-8")
    (tmp_path / "plugin.py").write_text(plugin, encoding="utf-8")
    for place in (tmp_path, tmp_path / "api"):
        (place / "texts.py").write_text(INTERFACE, encoding="utf-8")
    return [sys.executable, "-W", "error", "host.py"]


def _run(tmp_path, host, plugin):
    """What the host has printed."""
    command = _write(tmp_path, host, plugin)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_the_plugin_does_what_it_is_given_and_no_more(tmp_path):
    """Who does what the page says, and no more, sees what it says."""
    with Reader("docs/confinement.md", tmp_path) as reader:
        reader.follow()


@pytest.mark.parametrize(
    ("plugin", "code"),
    [
        ("import time\ntime.sleep(1000)", -signal.SIGKILL),
        ("import os\nos.close(1)\nos.close(2)\nwhile True: os.read(0, 1)", -signal.SIGKILL),
        # As Python's own status is where what it says finds nobody.
        ("import os\nwhile True: os.write(1, bytes(1 << 20))", 120),
    ],
    ids=["silent", "closed", "flood"],
)
def test_the_host_goes_on_whatever_the_plugin_does(tmp_path, plugin, code):
    """One that never ends, and one that never ceases to print, of which the host keeps little."""
    host, count = re.subn(r"(?<!<< )\b30\b", "1", HOST)
    assert count == 1
    printed = _run(tmp_path, host, plugin)
    assert printed.endswith(f"the plugin ended with {code}\n")
    # Four characters of each that it keeps.
    assert len(printed) < 50_000


def test_the_host_tells_of_the_plugins_errors(tmp_path):
    """Of one whose first line can't be compiled, too: it ends by a status of 1 all the same."""
    printed = _run(tmp_path, HOST, "import capmarshal as cm:").splitlines()
    assert "plugin: 'SyntaxError: invalid syntax'" in printed
    assert printed[-1] == "the plugin ended with 1"


def test_ctrl_c_ends_host_and_plugin(tmp_path):
    """At once, with a plugin that would never end: it has not heard of it."""
    host, count = re.subn(r"(?<!<< )\b30\b", "100000", HOST)
    assert count == 1
    plugin = """
import os, time
import capmarshal as cm
from texts import Texts
cm.parent().cast(Texts).found("number", os.getpid())
time.sleep(100000)
"""
    command = [*_write(tmp_path, host, plugin)]
    command.insert(1, "-u")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        number = None
        try:
            number = int(re.fullmatch(r"plugin: (\d+) in 'number'\n", process.stdout.readline())[1])
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == -signal.SIGINT
            with pytest.raises(ProcessLookupError):
                os.kill(number, 0)
            number = None
        finally:
            process.kill()
            if number is not None:
                os.kill(number, signal.SIGKILL)


def test_the_host_prints_nothing_that_the_plugin_makes_up(tmp_path):
    """No line that is not the plugin's by its beginning, and nothing that a terminal obeys."""
    plugin = """
import capmarshal as cm
from texts import Texts
cm.parent().cast(Texts).found("one\\nthe plugin ended with 7\\x1b[2J", 1)
print("\\x1b[2J\\nthe plugin ended with 7")
"""
    assert _run(tmp_path, HOST, plugin).splitlines() == [
        r"plugin: 1 in 'one\nthe plugin ended with 7\x1b[2J'",
        r"plugin: '\x1b[2J'",
        "plugin: 'the plugin ended with 7'",
        "the plugin ended with 0",
    ]


def test_the_page_names_each_part_that_may_be_missing():
    """And no other."""
    assert {*re.findall(r'\| `"(\w+)"`', PAGE)} == {*PARTS}
