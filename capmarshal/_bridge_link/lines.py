"""Lines of the log that other bridges bring about, however often they like: some at once, then so many a second."""

from __future__ import annotations

import logging
import math
import time

_logger = logging.getLogger("capmarshal")

# At once; and each second.
_AT_ONCE, _A_SECOND = 100.0, 10.0

# So many bodies of strangers are worth a line, once in so many seconds.
_STRAYS, _SAID_AGAIN = 10_000, 600.0


class Lines:
    """Those of one sort."""

    def __init__(self) -> None:
        """None yet."""
        self._room = _AT_ONCE
        self._looked = time.monotonic()
        self._left_out = 0

    def log(self, level: int, words: str, *args: object, error: BaseException | None = None) -> None:
        """Writes one, unless there were too many; the next one says how many were left out."""
        looked, self._looked = self._looked, time.monotonic()
        self._room = min(self._room + (self._looked - looked) * _A_SECOND, _AT_ONCE)
        if self._room < 1:
            self._left_out += 1
            return
        self._room -= 1
        left_out, self._left_out = self._left_out, 0
        if left_out:
            words, args = f"{words} (and %s such lines were left out)", (*args, f"{left_out:,}")
        _logger.log(level, words, *args, exc_info=error)


class Strays:
    """Bodies that nobody has sealed who has the key: counted, and said now and then where there are very many."""

    def __init__(self) -> None:
        """None yet."""
        self._count = 0
        self._said = -math.inf

    def one(self) -> None:
        """One more."""
        self._count += 1
        if self._count % _STRAYS == 0 and time.monotonic() - self._said >= _SAID_AGAIN:
            self._said = time.monotonic()
            _logger.warning(
                "bridge: %s bodies have come until now that nobody with a key has sealed: somebody sends them who may "
                "publish where this bridge serves",
                f"{self._count:,}",
            )


# That links begin and end; and faults that come with what others say.
links, faults = Lines(), Lines()
strays = Strays()
