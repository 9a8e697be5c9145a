"""What an entrypoint of either colour is made with: the defaults, and what cannot be."""

from __future__ import annotations

from capmarshal._kernel.numbers import check_seconds, check_whole
from capmarshal._server.limits import Limits
from capmarshal._server.new_door import check_label

MAX_BYTES = 64 << 20
# An error has to fit.
_BYTES_LEAST = 1000
MAX_DESCRIPTORS = 1024

# Seconds.
CLOSE_TIMEOUT = 5.0


def _check_maximum(name: str, most: int, least: int) -> None:
    check_whole(most, f"{name} is a whole number, {least} or more, not {most!r}", least)


def check_options(
    label: str, max_bytes: int, max_descriptors: int, close_timeout: float, limits: Limits, describe: bool
) -> None:
    """Refuses an entrypoint that cannot be.

    Raises:
        ValueError, TypeError: one of these is not what it is to be.
    """
    check_label(label)
    _check_maximum("max_bytes", max_bytes, _BYTES_LEAST)
    _check_maximum("max_descriptors", max_descriptors, 0)
    check_seconds(close_timeout, f"close_timeout is a number of seconds, 0 or more, not {close_timeout!r}")
    if not isinstance(limits, Limits):
        raise TypeError(f"limits are a cm.Limits, as limits=cm.Limits(channels=100), not {limits!r}")
    if not isinstance(describe, bool):
        raise TypeError(f"describe is True or False, not {describe!r}")
