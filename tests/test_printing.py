"""What all commands do alike: standard output is closed, full, or read by nobody."""

import os
import subprocess

import pytest

import commands
from patience import PATIENCE

COMMANDS = {
    "demo": ["demo", __file__],
    "doctor": ["doctor"],
    "doctor --json": ["doctor", "--json"],
    "inspect": ["inspect", str(os.getpid())],
    "describe": ["describe", "PLACE"],
    "call": ["call", "PLACE", "double", "4"],
    "completion": ["completion", "bash"],
    "help": ["--help"],
    "version": ["--version"],
}
# argparse itself says nothing of what it cannot write at once.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def _run(name, place, redirected):
    """Its exit status, and its complaints."""
    words = [str(place) if word == "PLACE" else word for word in COMMANDS[name]]
    script = ["sh", "-c", f'exec "$@" {redirected}', "sh", *commands.COMMAND, *words]
    with commands.desk_served(place, "awaitable"):
        done = subprocess.run(script, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False, env=ENVIRONMENT)
    return done.returncode, done.stderr


@pytest.mark.parametrize("redirected", [">&-", "<&- >&-"])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("help", "version")])
def test_a_standard_output_that_is_closed(name, redirected, place):
    assert _run(name, place, redirected) == (1, "capmarshal: standard output is closed\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_standard_output_that_is_full(name, place):
    status, complaints = _run(name, place, ">/dev/full")
    assert status == 1
    assert complaints.startswith("capmarshal: ")
    assert complaints.endswith("No space left on device\n")
    assert complaints.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_reads_on(name, place):
    """As head(1) does: that is no failure."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with commands.desk_served(place, "awaitable"):
            words = [str(place) if word == "PLACE" else word for word in COMMANDS[name]]
            done = subprocess.run(
                [*commands.COMMAND, *words], stdout=writer, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
            )
    finally:
        os.close(writer)
    # sha256sum(1) is ended by SIGPIPE, and the demo does what it prints.
    assert (done.returncode, done.stderr) == (1 if name == "demo" else 0, b"")


def test_a_picture_needs_none(tmp_path):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *commands.COMMAND, "inspect", "-o", str(tmp_path / "picture")]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "picture").read_text()
