"""The recipes of docs/sandboxes.md do what they say, for an ordinary user where the tool lets one in."""

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from documents import fenced, read
from patience import PATIENCE

PAGE = read("docs/sandboxes.md")
BLOCKS = fenced(PAGE)
FILES = {block.split()[1]: block for block in BLOCKS if block.startswith("# ")}
RECIPES = re.findall(
    r"^## ([\w-]+)$|^```python\n([^#].*?)^```$\n\n^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
)
DIGEST, *_ = fenced(read("README.md"))

# What each needs: a command that ends well where the tool can be used.
TOOLS = {
    "bubblewrap": ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "true"],
    "firejail": ["firejail", "--quiet", "--noprofile", "--net=none", "--seccomp", "true"],
    "systemd-run": ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "true"],
}


def _cases():
    """(tool, program, what it prints) of each recipe."""
    tool = ""
    for heading, program, printed in RECIPES:
        tool = heading or tool
        if program:
            yield tool, program, printed


CASES = list(_cases())


def test_no_recipe_is_overlooked():
    """Each program of the page is a file, or is run."""
    assert len(CASES) + len(FILES) == len(BLOCKS) == 9
    assert {tool for tool, _, _ in CASES} == {*TOOLS, "seccomp", "Landlock"}


def _usable(tool, options):
    """With which options the tool can be used; skips where it can't."""
    command = TOOLS[tool]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    # Some let root alone in, or whom root has named.
    for tried in (options, {}):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **tried)
        if done.returncode == 0:
            return tried
    pytest.skip(f"{command[0]} can't be used here: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")


@pytest.fixture
def anybodys():
    """A directory that any user may read."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize(
    ("tool", "program", "printed"), CASES, ids=[f"{tool}-{number}" for number, (tool, _, _) in enumerate(CASES)]
)
def test_a_recipe_works(tool, program, printed, anybodys, ordinary_python):
    """It prints what stands below it."""
    python, options = ordinary_python
    if tool in TOOLS:
        usable = _usable(tool, options)
        python, options = (python, options) if usable else (sys.executable, {})
    if tool == "Landlock" and ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:
        pytest.skip("this kernel has no Landlock, or it is switched off")
    for name, text in {**FILES, "digest.py": DIGEST}.items():
        (anybodys / name).write_text(text, encoding="utf-8")
    (anybodys / "data.bin").write_bytes(b"data")
    done = subprocess.run(
        [python, "-c", program], cwd=anybodys, capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )
    assert (done.stdout, done.stderr) == (printed, "")
