"""Lines of the log that other bridges bring about, however often they like: some at once, then so many a second."""

from __future__ import annotations

import logging
import time

_logger = logging.getLogger("capmarshal")

# At once; and each second.
_AT_ONCE, _A_SECOND = 100.0, 10.0


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


# That links begin and end; and faults that come with what others say.
links, faults = Lines(), Lines()
