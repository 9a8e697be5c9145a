"""What commands print: what is said where standard output is closed or full, and nothing where nobody reads on."""

from __future__ import annotations

import os
import sys

from capmarshal._descriptors.moving import opened
from capmarshal.demo.complaints import complain


def is_open() -> bool:
    """Whether there is a standard output; else says so."""
    if sys.stdout is None:
        complain("standard output is closed")
    return sys.stdout is not None


def printed(data: bytes) -> bool:
    """Writes to standard output, which is open, at once; whether nothing was wrong with it, else says what."""
    # Not by its write(): what could not be written then would be tried again at exit.
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError:
        # Whoever read has had enough.
        return True
    except OSError as error:
        complain(str(error))
        return False
    return True


def flushed() -> bool:
    """The same for what others have printed, as argparse does."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What is left would be tried again at exit.
        with opened(os.devnull, os.O_WRONLY) as nowhere:
            os.dup2(nowhere, sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            complain(str(error))
            return False
    return True
