"""What docs/bridge.md shows is done, on one machine that stands for both; and what it says of a unit of systemd's."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nats_servers
from documents import CHECKOUT, Reader, read
from patience import PATIENCE

PAGE = "docs/bridge.md"
UNIT = CHECKOUT / "examples/systemd/capmarshal-bridge.service"


def test_the_page_is_followed(tmp_path):
    """Each program runs, and each command prints what stands below it; by a node of the test's."""
    (tmp_path / "nodes").mkdir()
    with nats_servers.nodes(tmp_path / "nodes") as [node], Reader(PAGE, tmp_path) as reader:
        # The machine is its own neighbour.
        reader.run('ssh() { shift; "$@"; }')
        reader.follow({"nats://one.example:4222": node.address})


def test_all_words_of_the_command_are_there():
    """Those that the page shows, in the order of a command line."""
    shown = set(re.findall(r"capmarshal bridge .*?(export|import|run) ", read("docs/bridge.md")))
    assert shown == {"export", "import", "run"}


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: systemd)"
)
def test_the_unit_is_one(tmp_path):
    """As systemd reads it; with the command that is there."""
    command = Path(sys.executable).with_name("capmarshal")
    text = UNIT.read_text(encoding="utf-8")
    assert "/usr/local/bin/capmarshal bridge run" in text
    (tmp_path / UNIT.name).write_text(text.replace("/usr/local/bin/capmarshal", str(command)), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / UNIT.name],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert UNIT.name not in done.stderr
    assert (done.returncode, done.stdout) == (0, "")
