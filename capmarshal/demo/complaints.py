"""What the demo says on standard error: nothing depends on whether anybody can hear it."""

from __future__ import annotations

import contextlib
import os
import sys


def show(text: str) -> None:
    """Writes text to standard error, at once; goes on where that is closed, full, or read by nobody."""
    if sys.stderr is None:
        return
    # Not by its write(): what could not be written then would be tried again at exit, and change the exit status.
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), text.encode(sys.stderr.encoding, "backslashreplace"))


def complain(message: str) -> None:
    """Shows a line that says who complains."""
    show(f"capmarshal: {message}\n")
