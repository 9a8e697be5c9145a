"""The C programs of this directory: the limit to measure against."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).parent


def run(*command: str | Path) -> str:
    """What a program printed; its errors are its own to report."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}")
    return done.stdout


@contextlib.contextmanager
def compiled(name: str) -> Iterator[Path]:
    """One of them, compiled, as long as the block runs."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, name)
        try:
            run("cc", "-O2", "-o", program, _HERE / f"{name}.c", _HERE / "measuring.c")
        except FileNotFoundError:
            raise SystemExit("there is no C compiler: cc is not on the PATH") from None
        yield program
