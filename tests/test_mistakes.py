"""What docs/mistakes.md says that a mistake prints is what it prints."""

import os
import re
import subprocess
import sys

import pytest

from documents import fenced, read

PAGE = read("docs/mistakes.md")
MISTAKES = re.findall(r"^## (.+?)$.*?^```python\n(.*?)^```$\n\n^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
DIGEST, *_ = fenced(read("README.md"))


def test_there_are_fourteen():
    """None of them is overlooked here."""
    assert len(MISTAKES) == PAGE.count("\n## ") == 14


@pytest.mark.parametrize(("program", "printed"), [each[1:] for each in MISTAKES], ids=[each[0] for each in MISTAKES])
def test_a_mistake_prints_what_the_page_says(program, printed, tmp_path, request):
    """The last lines of the traceback: what is wrong, and what to do."""
    if "confine=" in program:
        request.getfixturevalue("confinable")
        if "libasan" in os.environ.get("LD_PRELOAD", ""):
            pytest.skip("a confined process has not the environment by which AddressSanitizer comes")
    (tmp_path / "digest.py").write_text(DIGEST, encoding="utf-8")
    (tmp_path / "data.bin").write_bytes(b"data")
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    # How long it has waited: a busy machine is late.
    stderr = re.sub(r"no answer in \d+\.\d+ s", "no answer in 1.0 s", done.stderr)
    assert stderr.endswith("\n" + printed)
