"""The installed command ``capmarshal`` in its first moments."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE

COMMAND = Path(sys.executable).parent / "capmarshal"


@pytest.mark.parametrize("words", [["--version"], ["bridge", "run", "x"], ["doctor"]])
def test_interrupted_while_it_is_imported(words, tmp_path):
    """It ends by the signal, as a program that has not heard of it, and says nothing."""
    # The first that it imports after the package.
    (tmp_path / "argparse.py").write_text("import sys\nprint('imports', flush=True)\nsys.stdin.read()\n")
    with subprocess.Popen(
        [COMMAND, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "imports\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == -signal.SIGINT
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_who_ignores_the_signal_goes_on_doing_so(tmp_path):
    """As what a shell has started in the background."""
    done = subprocess.run(
        ["sh", "-c", f"trap '' INT; {sys.executable} -P -c \"$0\"", PROGRAM],
        capture_output=True,
        timeout=PATIENCE,
        text=True,
    )
    assert done.stdout.endswith("Handlers.SIG_IGN\n"), done


PROGRAM = """
import sys, signal
sys.argv = ["capmarshal", "completion", "bash"]
from capmarshal import _command
_command.main()
print(repr(signal.getsignal(signal.SIGINT)).partition(":")[0].strip("<"))
"""
