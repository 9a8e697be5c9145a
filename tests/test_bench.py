"""The benchmark runs, checks its results and reports what it says.  Nothing is asserted about a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench" / "call.py"
CONTENDERS = ["capmarshal, typed call", "C, kept channel", "C, reply socketpair per call"]

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the benchmark compiles C")


@pytest.fixture
def run(tmp_path):
    """run(): the benchmark with tiny counts; what it printed, and what it wrote."""

    def benchmark():
        file = tmp_path / "figures.json"
        done = subprocess.run(
            [sys.executable, BENCH, "--json", file, "--rounds", "2", "--calls", "20"],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout, json.loads(file.read_text())

    return benchmark


@pytest.fixture
def one_core():
    """This thread, and the processes that it starts, may use only one core."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    yield min(usable)
    os.sched_setaffinity(0, usable)


def test_every_contender_has_a_row_at_every_place_with_a_figure_for_each_round(run):
    _, report = run()

    places = min(len(os.sched_getaffinity(0)), 2)
    assert CONTENDERS * places == [row["contender"] for row in report["rows"]]
    for row in report["rows"]:
        for figures in (row["microseconds"], row["ratio"]):
            assert len(figures["rounds"]) == 2
            assert 0 < figures["lower"] <= figures["median"] <= figures["upper"]


def test_ratios_are_to_the_kept_channel_of_the_same_round(run):
    _, report = run()

    for capmarshal, kept, fresh in zip(*[iter(report["rows"])] * 3, strict=True):
        base = kept["microseconds"]["rounds"]
        for row in (capmarshal, kept, fresh):
            expected = [own / other for own, other in zip(row["microseconds"]["rounds"], base, strict=True)]
            assert expected == row["ratio"]["rounds"]


def test_the_report_says_what_was_measured_and_on_what(run):
    out, report = run()

    assert {"capmarshal", "python", "kernel", "cpu", "cores"} == report["machine"].keys()
    for value in report["machine"].values():
        assert str(value) in out
    assert {name: report["settings"][name] for name in ("rounds", "calls")} == {"rounds": 2, "calls": 20}
    # The fixed parts of a CALL and a REPLY: _wire.py.
    assert report["settings"]["call_bytes"] > 50
    assert report["settings"]["reply_bytes"] > 16


def test_two_cores_are_skipped_with_a_line_where_there_is_one(one_core, run):
    out, report = run()

    assert "two cores: skipped" in out
    assert [(one_core, one_core)] * 3 == [(row["client_core"], row["server_core"]) for row in report["rows"]]
