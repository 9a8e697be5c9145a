"""``make test``'s runs beside each other: each file is in one of the parts, and what fails in one fails the whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import side_by_side

CONFTEST = f"""
import sys
sys.path.append({str(Path(side_by_side.__file__).parent)!r})
from side_by_side import (
    add_options as pytest_addoption, ignore as pytest_ignore_collect, select as pytest_collection_modifyitems
)
"""


@pytest.fixture
def suite(tmp_path):
    """suite(**files): runs a suite of these in two parts: its status, and all that it printed."""

    def run(*options, **files):
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "pytest.ini").write_text("[pytest]")
        for name, text in files.items():
            (tmp_path / f"test_{name}.py").write_text(text)
        ended = subprocess.run(
            [sys.executable, side_by_side.__file__, "--parts=2", "--", "-vv", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert not ended.stderr
        return ended.returncode, ended.stdout

    return run


def test_each_file_is_in_one_part(suite):
    status, printed = suite(**dict.fromkeys("abcde", "def test_it(): pass"))
    assert status == 0
    assert printed.endswith("2 runs; all passed\n")
    assert [printed.count(f"test_{name}.py::test_it PASSED") for name in "abcde"] == [1] * 5


def test_a_part_does_not_read_the_files_of_another_one(suite):
    status, printed = suite(a="raise RuntimeError('read')", b="def test_it(): pass")
    assert status == 1
    assert printed.endswith("2 runs; failed: 1/2 (status 2)\n")


def test_files_that_are_named_are_in_one_part_each(suite):
    status, printed = suite("test_a.py", "test_b.py", **dict.fromkeys("abc", "def test_it(): pass"))
    assert status == 0
    assert [printed.count(f"test_{name}.py::test_it PASSED") for name in "abc"] == [1, 1, 0]


def test_what_fails_in_one_part_fails_the_whole(suite):
    status, printed = suite(a="def test_it(): assert not 'this one'", b="def test_it(): pass")
    assert status == 1
    assert "1/2 | E   AssertionError: assert not 'this one'" in printed
    assert printed.endswith("2 runs; failed: 1/2 (status 1)\n")


def test_what_has_failed_is_said_once_more_at_the_end(suite):
    """Below what the others print: where a log keeps but its end, that says which test it was, and why."""
    status, printed = suite(a="def test_it(): assert not 'this one'", b="def test_it(): pass")
    assert status == 1
    _, end = printed.split("\n1/2 failed: --part=1/2\n")
    assert "| " not in end
    assert "E   AssertionError: assert not 'this one'" in end
    assert "\nFAILED test_a.py::test_it" in end
    assert end.endswith("\n2 runs; failed: 1/2 (status 1)\n")


def test_each_run_says_how_it_comes_again_in_the_same_order(suite):
    """Also one that passes, or ends without a report."""
    _, printed = suite(a="def test_it(): pass", b="import os\ndef test_it(): os._exit(1)")
    said = re.findall(r"this run again: (.*) --randomly-seed=\d+$", printed, re.MULTILINE)
    assert set(said) == {"-q --part=1/2 -vv", "-q --part=2/2 -vv"}


def test_a_part_without_tests_passes(suite):
    status, printed = suite("-k", "only_this", a="def test_only_this(): pass", b="def test_another(): pass")
    assert status == 0
    assert printed.endswith("2 runs; all passed\n")


def test_an_option_that_pytest_does_not_know_fails(suite):
    status, printed = suite("--no-such-option", a="def test_it(): pass")
    assert status == 1
    assert "failed: 1/2 (status 4), 2/2 (status 4)" in printed
