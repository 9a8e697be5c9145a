"""What options of several commands take."""

from __future__ import annotations

import argparse


def seconds(word: str) -> float:
    """A time to wait, more than none.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        time = float(word)
    except ValueError:
        time = 0.0
    # Nor is what is no number.
    if not time > 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds, more than 0")
    return time
