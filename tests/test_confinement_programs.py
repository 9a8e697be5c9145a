"""What docs/confinement.md shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from capmarshal._child.confinement import PARTS
from confined import not_sanitized
from patience import PATIENCE

pytestmark = not_sanitized

PAGE = (Path(__file__).parents[1] / "docs" / "confinement.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
(PRINTED,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_plugin_does_what_it_is_given_and_no_more(tmp_path):
    """The page's host and plugin print what it says."""
    host, plugin = PROGRAMS
    (tmp_path / "api").mkdir()
    (tmp_path / "host.py").write_text(host, encoding="utf-8")
    (tmp_path / "plugin.py").write_text(plugin, encoding="utf-8")
    # What the plugin has of the host: the interface.
    interface, _, _ = host.partition("class TextsServer")
    (tmp_path / "api" / "texts.py").write_text(interface, encoding="utf-8")
    command = [sys.executable, "-W", "error", "host.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == PRINTED


def test_the_page_names_each_part_that_may_be_missing():
    """And no other."""
    assert {*re.findall(r'\| `"(\w+)"`', PAGE)} == {*PARTS}
