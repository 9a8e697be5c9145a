"""One thing that is tried, and what it means where it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._doctor.finding import Level


class Lacking(Exception):
    """It is not to be had, or there is little of it.

    Args:
        found: in words.
        mend: what helps, where that is another than the probe's own.
        level: how much it matters, likewise.
        costs: what it costs, likewise.
    """

    def __init__(
        self, found: str, *, mend: str | None = None, level: Level | None = None, costs: str | None = None
    ) -> None:
        super().__init__(found)
        self.found = found
        self.mend = mend
        self.level = level
        self.costs = costs


@dataclass(frozen=True, slots=True)
class Probe:
    """What is tried.

    Attributes:
        group: what it belongs to, for people.
        name: what it is, for people.
        look: tries it, and says what was found; raises :class:`Lacking`, or what failing raises.
        lacking: the level where it does.
        costs: what the package then does, or does not.
        mend: what helps, where neither a filter nor the age of the kernel is why.
        call: the system call that a filter would have to allow, if that is why.
        since: the Linux that has it first.
        for_good: it changes the process that tries it, and so is only tried in one that ends with it.
    """

    group: str
    name: str
    look: Callable[[], str]
    lacking: Level
    costs: str
    mend: str = ""
    call: str = ""
    since: str = ""
    for_good: bool = False
