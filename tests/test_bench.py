"""The benchmark runs, checks its results and reports what it says.  Nothing is asserted about a time."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

BENCH = Path(__file__).parent.parent / "bench"
SVG = "{http://www.w3.org/2000/svg}"
CONTENDERS = ["capmarshal, typed call", "C, kept channel", "C, reply socketpair per call"]

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the benchmark compiles C")


@pytest.fixture
def run(tmp_path):
    """run(): the benchmark with tiny counts; what it printed, and what it wrote."""

    def benchmark():
        file = tmp_path / "figures.json"
        done = subprocess.run(
            [sys.executable, BENCH / "call.py", "--json", file, "--rounds", "2", "--calls", "20"],
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


@pytest.fixture(scope="module")
def transfer(tmp_path_factory):
    """What bench/transfer.py printed with tiny amounts, what it wrote, and where it drew."""
    directory = tmp_path_factory.mktemp("transfer")
    file, pictures = directory / "figures.json", directory / "pictures"
    done = subprocess.run(
        [sys.executable, BENCH / "transfer.py", "--quick", "--rounds", "2", "--json", file, "--svg", pictures],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(file.read_text()), pictures


def contenders_of(report, task):
    return {row["contender"] for row in report["rows"] if row["task"] == task}


def test_bytes_and_descriptors_are_handed_over_by_everybody_who_can(transfer):
    _, report, _ = transfer

    python = {"socket.send_fds", "multiprocessing.Connection", "C"}
    assert {"capmarshal, inline", "capmarshal, Dataspace"} | python == contenders_of(report, "bytes")
    python = {"socket.send_fds", "multiprocessing.reduction.DupFd", "C"}
    assert {"capmarshal"} | python == contenders_of(report, "descriptors")


def test_who_cannot_hand_something_over_is_named_with_the_reason(transfer):
    out, report, _ = transfer

    assert "bytes: multiprocessing.reduction.DupFd: hands over no bytes" in report["not_measured"]
    assert any(line.startswith("descriptors: multiprocessing.Connection: ") for line in report["not_measured"])
    for line in report["not_measured"]:
        assert line in out


def test_every_amount_has_a_figure_for_each_round(transfer):
    _, report, _ = transfer

    for row in report["rows"]:
        assert len(row["microseconds"]["rounds"]) == len(row["ratio"]["rounds"]) == 2
        assert 0 < row["microseconds"]["lower"] <= row["microseconds"]["median"] <= row["microseconds"]["upper"]


def test_the_largest_dataspace_is_compared_with_one_kib(transfer):
    out, report, _ = transfer

    assert min(len(os.sched_getaffinity(0)), 2) == len(report["dataspace_ratio"])
    assert all(ratio["median"] > 0 for ratio in report["dataspace_ratio"])
    assert "against 1 KiB" in out


@pytest.mark.parametrize("task", ["bytes", "descriptors"])
def test_charts_are_well_formed_and_name_every_line(transfer, task):
    _, report, pictures = transfer

    picture = ET.parse(pictures / f"transfer-{task}.svg").getroot()

    assert f"{SVG}svg" == picture.tag
    assert contenders_of(report, task) <= {text.text for text in picture.iter(f"{SVG}text")}


def test_names_of_lines_that_end_together_do_not_overlap(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import chart

    lines = {f"line {i}": [(1.0, 5.0), (10.0, 50.0)] for i in range(5)}
    drawn = chart.line_chart("", "", {1: "1"}, str, lines, {name: i for i, name in enumerate(lines)})

    names = [text for text in ET.fromstring(drawn).iter(f"{SVG}text") if text.text in lines]
    heights = sorted(float(name.get("y")) for name in names)
    assert len(heights) == 5
    assert all(after - before >= 15 for before, after in itertools.pairwise(heights))
