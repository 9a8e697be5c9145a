"""The soak of bridges of ``make test-long`` in small: calls while bridges and nodes are killed and stand still."""

import subprocess
import sys
from pathlib import Path

import nats_servers
from patience import PATIENCE

SOAK = Path(__file__).parent / "support" / "bridge_soak.py"


def test_a_small_soak_gives_no_wrong_answer():
    """No call runs twice, or after its caller was told that it never will; and no bridge has a fault to log."""
    nats_servers.find_program()
    command = [sys.executable, SOAK, "5000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=6 * PATIENCE, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["no wrong answer"]), done.stdout + done.stderr
    assert "fault" not in done.stderr, done.stderr
    assert "raised" not in done.stderr, done.stderr
