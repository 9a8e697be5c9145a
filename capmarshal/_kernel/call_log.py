"""The log of calls: one line for each, at its client and at its server, for who looks for a fault.

It is off unless it is asked for, and costs nothing then: whether it is wanted is asked where a proxy is cast and where
an entrypoint is made, which are of another class if it is.  So a program that raises the logger's level to DEBUG does
it before; what was made before logs no calls.

A line says who, which method, how long, how much and how it ended; never an argument, a result, an error's text or a
badge.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_SWITCH = "CAPMARSHAL_LOG"
_NAME = "capmarshal"

# How a call has ended that was given up, at either side.
CANCELLED = "cancelled"


class _Writing(threading.local):
    """Whether this thread writes a line at the moment."""

    now = False


_writing = _Writing()

# The package's, once somebody has imported logging: before that, nobody can have asked for anything.
_found: logging.Logger | None = None


def _logger() -> logging.Logger | None:
    global _found  # looked up once, for getLogger() takes a lock
    if _found is None and "logging" in sys.modules:
        _found = sys.modules["logging"].getLogger(_NAME)
    return _found


def wanted() -> bool:
    """Whether what is made now is to log its calls."""
    logger = _logger()
    return logger is not None and logger.isEnabledFor(10)  # logging.DEBUG


def write(words: str, *args: object) -> None:
    """Writes a line about a call that has ended.

    Not about calls that are made while a line is written: a handler of the log may itself make calls.

    Args:
        words: as of :meth:`logging.Logger.debug`.
        args: likewise.
    """
    logger = _logger()
    if logger is None or _writing.now:
        return
    _writing.now = True
    try:
        # A filter or handler of the application's own may raise, which is not to end the call that is logged.
        with contextlib.suppress(Exception):
            logger.debug(words, *args)
    finally:
        _writing.now = False


def took(began: int) -> str:
    """How long a call took that began at a reading of CLOCK_MONOTONIC, and ends now."""
    return f"{(time.monotonic_ns() - began) / 1e6:.3f} ms"


def _switch_on() -> None:
    """Has all of it written to standard error, unless the program sends its log somewhere by itself."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s: %(message)s"))
    handler.addFilter(lambda _record: not logging.getLogger().handlers)
    logger = logging.getLogger(_NAME)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


if value := os.environ.get(_SWITCH):
    if value.lower() == "debug":
        _switch_on()
    else:
        warnings.warn(f"{_SWITCH}={value} does nothing: {_SWITCH}=debug has calls logged", RuntimeWarning, stacklevel=2)
