"""What docs/debugging.md shows is what is seen."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import capmarshal as cm
import inspect_picture
from documents import fenced, read
from patience import PATIENCE

ROOT = Path(__file__).parents[1]
PAGE = read("docs/debugging.md")
CONSOLES = fenced(PAGE, "console")


def _shape(lines):
    """Lines with whatever differs from run to run as #: numbers, and a hash as a whole; spaces as one."""
    return sorted(re.sub(r"\s+", " ", re.sub(r"\b(?=\w*\d)[0-9a-f]+\b", "#", line)).strip() for line in lines)


def test_the_lines_about_calls(tmp_path):
    """The README's example, run as the page says, writes the lines that stand there."""
    digest, worker, *_ = fenced(read("README.md"))
    (tmp_path / "digest.py").write_text(digest, encoding="utf-8")
    (tmp_path / "worker.py").write_text(worker, encoding="utf-8")
    (tmp_path / "data.bin").write_bytes(b"x" * 1000)
    done = subprocess.run(
        [sys.executable, "digest.py"],
        cwd=tmp_path,
        env=os.environ | {"CAPMARSHAL_LOG": "debug"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    command, *shown, total = CONSOLES[0].splitlines()
    assert command == "$ CAPMARSHAL_LOG=debug python digest.py"
    assert done.stdout.strip() == total == hashlib.sha256(b"x" * 1000).hexdigest()
    assert _shape(done.stderr.splitlines()) == _shape(shown)


def test_what_inspect_shows():
    """Table and picture are those of the same processes, run again: but for what this user may not look into."""
    forms = inspect_picture.inspected(table=[], svg=["--svg"])
    command, *shown = next(lines for lines in map(str.splitlines, CONSOLES) if "capmarshal inspect" in lines[0])
    assert re.fullmatch(r"\$ capmarshal inspect \d+ \| cat", command)
    assert _shape(_seen(forms["table"].splitlines())) == _shape(_seen(shown))
    picture = inspect_picture.PICTURE.read_text(encoding="utf-8")
    drawn, kept = (re.findall(r"<text[^>]*>(.*?)</text>", each) for each in (forms["svg"], picture))
    assert _shape(_seen(drawn)) == _shape(_seen(kept))
    assert forms["svg"].count("--stuck") == picture.count("--stuck")


def _seen(lines):
    """Without what was not seen, which is another machine's; this Python may have a version in its name."""
    return [re.sub(r"\bpython[\d.]+", "python", line) for line in lines if not line.startswith("not seen: ")]


class Thing(cm.Interface):
    """Held by a child that does nothing with it."""


@pytest.mark.skipif(shutil.which("ss") is None, reason="iproute2 is not installed")
def test_who_holds_what():
    """The server's end has the name, and whoever holds the client end, whose number stands beside it, is listed."""
    # Until it imports capmarshal, its capability waits in a socket, which holds the door as well as anybody.
    program = [sys.executable, "-P", "-c", "import capmarshal, sys; print('taken', flush=True); sys.stdin.read()"]
    with cm.Entrypoint("debugged") as entrypoint:
        capability = entrypoint.manage(Thing())
        with cm.spawn(program, parent=capability, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"taken\n"
            told = subprocess.run(["ss", "-xap"], capture_output=True, text=True, timeout=PATIENCE, check=True)
            number = os.fstat(capability.fileno()).st_ino
            lines = [line for line in told.stdout.splitlines() if f" {number} " in line]
            named, holders = sorted(lines, key=lambda line: capability.name not in line)
            assert re.search(rf"@{capability.name} \d+ +\* {number} ", named)
            assert f"pid={os.getpid()}," in named
            assert f"pid={child.pid}," not in named
            assert f"pid={os.getpid()}," in holders
            assert f"pid={child.pid}," in holders


def test_the_table_of_lines_is_that_of_the_code():
    """Each line that the page lists is written somewhere."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "capmarshal").rglob("*.py"))
    table = [line for line in PAGE.splitlines() if re.match(r"\| (WARNING|ERROR|CRITICAL) ", line)]
    assert len(table) == 8
    for line in table:
        for words in re.findall(r"`([^`]+)`", line.split("|")[2]):
            fixed = words.removesuffix("...").replace("X.y", "%s").replace("5.0", "%.1f").strip()
            assert f'"{fixed}' in sources, fixed
