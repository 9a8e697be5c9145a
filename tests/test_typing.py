"""What users' type checkers say of the package: of right programs nothing, of wrong ones exactly the errors marked."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import capmarshal

PROGRAMS = Path(__file__).parent / "typing"
# Where the package is found.  An editable install is found by a hook of setuptools', which no type checker runs.
SOURCES = Path(capmarshal.__file__).parent.parent
EDITABLE = SOURCES not in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}

PATIENCE = 100


def _check(command, **environment):
    """That a type checker finds nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout


def test_mypy_strict_accepts_right_programs_and_refuses_wrong_ones(tmp_path):
    """assert_type holds, and each line that is wrong on purpose makes the error that it ignores."""
    pytest.importorskip("mypy")
    search = {"MYPYPATH": str(SOURCES)} if EDITABLE else {}
    # No configuration but this: a user has other settings than this project.
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}", "--python-executable", sys.executable]
    _check(["mypy", *options, "--follow-imports=silent", PROGRAMS], **search)


def test_basedpyright_accepts_right_programs_and_refuses_wrong_ones(tmp_path):
    """As for mypy; pyright's own ignore comments only."""
    pytest.importorskip("basedpyright")
    configuration = tmp_path / "pyrightconfig.json"
    configuration.write_text(
        json.dumps(
            {
                "include": [str(PROGRAMS)],
                "extraPaths": [str(SOURCES)] if EDITABLE else [],
                "typeCheckingMode": "strict",
                "enableTypeIgnoreComments": False,
                "reportUnnecessaryTypeIgnoreComment": "error",
                "reportMissingModuleSource": "none",
            }
        )
    )
    _check(["basedpyright", "--project", configuration, "--pythonpath", sys.executable])


@pytest.mark.skipif(EDITABLE, reason="an editable installation is found by no type checker")
def test_every_public_symbol_has_a_type_that_no_type_checker_has_to_guess(tmp_path):
    """What a class or function says of itself; what one checker infers, another may infer otherwise."""
    pytest.importorskip("basedpyright")
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--verifytypes", "capmarshal", "--ignoreexternal", "--outputjson"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
        # How it finds the package here: --pythonpath does not say where its py.typed is.
        env=os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    found = json.loads(done.stdout)["typeCompleteness"]
    assert [symbol["name"] for symbol in found["symbols"] if not symbol["isTypeKnown"]] == []
    assert found["completenessScore"] == 1
    assert len(found["symbols"]) > len(capmarshal.__all__)
