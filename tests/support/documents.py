"""The documents: what is fenced in them, and a page that is followed from top to bottom, as its reader would.

A page that is followed has, in its own directory:

- a ``python`` or ``toml`` block whose first line is ``# name.py``: that file, from there on;
- another ``python`` block: a program, run at once; a ``text`` block below it is what it prints;
- a ``console`` block: commands, each after ``$ ``, given to one shell for the whole page; below each is what it prints.

What differs from run to run is written as ``...``: within a line any characters, as a line any lines.  A comment, which
neither GitHub nor the site shows, ``<!-- before: ... -->``, has the lines of a program that the next block leaves out.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from patience import PATIENCE

CHECKOUT = Path(__file__).parents[2]

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- (before): ?(.*?)\s*-->$", re.DOTALL | re.MULTILINE)
# Ends what a command prints.
_MARK = "\x01"


@dataclass(frozen=True)
class Block:
    """What is fenced: its language, or which comment it is; and the line that it begins at."""

    kind: str
    text: str
    line: int


def read(name):
    """The text of a page: "README.md", "docs/async.md"."""
    return (CHECKOUT / name).read_text(encoding="utf-8")


def blocks(text):
    """All that is fenced in a page, and its comments that are for us."""
    found = []
    for match in _FENCED.finditer(text):
        language, fenced, comment, words = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(language or comment, fenced if language else words, line))
    return found


def fenced(text, language="python"):
    """The blocks of one language, in their order."""
    return [block.text for block in blocks(text) if block.kind == language]


def as_pattern(shown):
    """What matches the output that a page shows."""
    lines = [re.escape(line).replace(re.escape("..."), "[^\n]*") for line in shown.splitlines()]
    return re.compile("\n".join(".*" if line == "[^\n]*" else line for line in lines) + "\n?", re.DOTALL)


class Reader:
    """Does what a page says, in a directory.

    Args:
        name: of the page.
        place: the directory.
    """

    def __init__(self, name, place):
        self._name, self._place = name, place
        # As in an activated environment; what is warned of is an error.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONWARNINGS": "error"}
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=place,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # With what the page has begun and left.
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate(timeout=PATIENCE)

    def run(self, command):
        """(what it prints, its status)."""
        self._shell.stdin.write(f"{command}\nprintf '{_MARK}%d{_MARK}' $?\n".encode())
        self._shell.stdin.flush()
        printed, deadline = b"", time.monotonic() + PATIENCE
        while printed.count(_MARK.encode()) < 2:
            ready, _, _ = select.select([self._shell.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{self._name}: {command!r} has not ended; it printed {printed.decode()!r}"
            part = os.read(self._shell.stdout.fileno(), 1 << 16)
            assert part, f"{self._name}: the shell ended at {command!r}"
            printed += part
        text, status, _ = printed.decode().split(_MARK)
        return text, int(status)

    def _expect(self, block, command, shown):
        printed, status = self.run(command)
        where = f"{self._name}, line {block.line}: {command}"
        assert as_pattern(shown).fullmatch(printed), f"{where}\nprints\n{printed}\nand not\n{shown}"
        # What fails says so, and the page shows it.
        assert status == 0 or shown, f"{where}: status {status}"

    def follow(self, instead=None):
        """Does all of it; each of these words stands for another one."""
        text = read(self._name)
        for word, other in (instead or {}).items():
            assert word in text, f"{self._name} has no {word}"
            text = text.replace(word, other)
        before, todo = "", blocks(text)
        for number, block in enumerate(todo):
            named = re.match(r"# ([\w.]+)\n", block.text)
            if block.kind == "before":
                before = block.text + "\n"
            elif block.kind == "console":
                for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
                    self._expect(block, command, shown)
            elif block.kind in ("python", "toml") and named:
                (self._place / named[1]).write_text(block.text, encoding="utf-8")
            elif block.kind == "python":
                program = self._place / f"line_{block.line}.py"
                program.write_text(before + block.text, encoding="utf-8")
                below = todo[number + 1] if number + 1 < len(todo) else None
                self._expect(block, f"python {program.name}", below.text if below and below.kind == "text" else "")
                before = ""
