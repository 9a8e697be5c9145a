"""What was found of one thing."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Level(enum.StrEnum):
    """How much it matters."""

    OK = "ok"
    # Nothing here depends on it, and it is good to know.
    NOTE = "note"
    # The package does with less.
    LESS = "less"
    # It could not be tried, for a reason of its own.
    UNTRIED = "untried"
    # No call is made, or none is served.
    MISSING = "missing"


# In the order in which they are worse.
LEVELS: Final = (*Level,)


class Finding(NamedTuple):
    """What was found.

    Attributes:
        group: what it belongs to, for people.
        name: what was tried.
        level: how much it matters.
        found: in words.
        costs: what the package then does, or does not; empty where all is well.
        mend: what to type, or to have somebody type; empty where nothing helps, or nothing has to.
    """

    group: str
    name: str
    level: Level
    found: str
    costs: str = ""
    mend: str = ""


def worst(findings: list[Finding]) -> Level:
    """The worst level among them."""
    return max((each.level for each in findings), key=LEVELS.index, default=Level.OK)
