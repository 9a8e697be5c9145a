"""What docs/testing.md shows works as it stands there: pytest is run on it."""

import os
import re
import subprocess
import sys

from capmarshal import testing
from documents import read
from patience import PATIENCE

PAGE = read("docs/testing.md")
FILES = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_its_tests_pass(tmp_path):
    """All of them, and those of each file."""
    for name, text in FILES:
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-P", "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )
    count = sum(text.count("\ndef test_") for _, text in FILES)
    assert re.fullmatch(rf"{count} passed in \S+", done.stdout.splitlines()[-1].split(" (")[0]), done.stdout
    assert done.stderr == ""


def test_every_block_is_a_file():
    """Which the test above writes."""
    assert len(FILES) == len(re.findall(r"^```python$", PAGE, re.MULTILINE))


def test_the_page_names_all_of_it():
    """And what a peer does."""
    does = {name for name in vars(testing.Peer) if not name.startswith("_")}
    assert [name for name in {*testing.__all__, *does} - {"Leaked", "Pair", "Peer"} if f"{name}(" not in PAGE] == []
