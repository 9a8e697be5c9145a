"""Each load of a neighbour runs, and an honest client beside it is served.  Nothing is asserted about a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
LOADS = [
    "threads",
    "pipelined",
    "naps",
    "memfds",
    "files",
    "begun",
    "knocks",
    "junk",
    "wrong",
    "unread",
    "undrawn",
    "malformed",
    "raising",
    "dying",
    "lingering",
    "long",
]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench.neighbours", "--quick", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("load", LOADS)
def test_each_load_runs_beside_an_honest_client(load):
    """A row of figures, and one of being alone; the honest client meets no error."""
    done = run("--load", load)

    assert done.returncode == 0, done.stderr
    head, _, alone, beside = (cells(line) for line in done.stdout.splitlines() if line.startswith("|"))
    assert len(head) == len(alone) == len(beside)
    assert alone[0] == "alone"
    row = dict(zip(head, beside, strict=True))
    assert row["p99"] not in ("", "not measured"), done.stderr
    assert row["errors"] == ""


def test_loads_are_measured_with_each_version():
    """A table for each interpreter, under the name that it was given."""
    done = run("--load", "wrong", f"old={sys.executable}", f"new={sys.executable}")

    assert [line for line in done.stdout.splitlines() if line.startswith("## ")] == ["## old", "## new"]
    assert done.stderr.splitlines() == ["wrong, old", "wrong, new"]


def test_a_load_that_cannot_be_measured_is_a_row_that_says_so():
    """An interpreter that has no capmarshal."""
    done = run("--load", "wrong", "none=/bin/false")

    assert done.returncode == 0, done.stderr
    assert "| not measured |" in done.stdout


def test_the_loads_are_those_that_are_tested():
    """As the command lists them."""
    assert f"{{{','.join(LOADS)}}}" in "".join(run("--help").stdout.split())
