"""What a bridge says on standard error: the lines of the package's log."""

from __future__ import annotations

import logging

from capmarshal._kernel.errors import printable
from capmarshal.demo.complaints import complain


class _Speaking(logging.Handler):
    """Writes lines in which nothing is that a terminal obeys: other bridges may have a part in them."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        for line in self.format(record).splitlines():
            complain(f"{kind}{printable(line)}")


def speak() -> None:
    """From here on."""
    logger = logging.getLogger("capmarshal")
    logger.addHandler(_Speaking())
    logger.setLevel(logging.INFO)
    # Once.
    logger.propagate = False
