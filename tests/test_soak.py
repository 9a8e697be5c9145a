"""The soak of ``make test-long`` in small: clients of every driver that call, cancel and are killed leave nothing."""

import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

SOAK = Path(__file__).parent / "support" / "soak.py"


def test_a_small_soak_leaves_everything_as_it_was():
    """Each answer is the right one, and all descriptors are what they were; so few calls say nothing about memory."""
    command = [sys.executable, SOAK, "2000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["all as it was"]), done.stdout + done.stderr
