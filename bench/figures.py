"""What was measured: values round by round, their spread, and ratios within a round."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.places import Cores

Unit: TypeAlias = Literal["second", "byte"]


class Spread(NamedTuple):
    """Median and quartiles."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of two values or more."""
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


class Ratio(NamedTuple):
    """One contender's figures as multiples of another's, each of the same round.

    Attributes:
        subject: whose figures.
        base: of whom they are multiples.
        values: one a round.
        target: what the median is to reach: so much, or less; None if there is none.
    """

    subject: str
    base: str
    values: list[float]
    target: float | None

    @property
    def reached(self) -> bool | None:
        """Whether the median is what it is to be."""
        return None if self.target is None else statistics.median(self.values) <= self.target


@dataclasses.dataclass
class Comparison:
    """One work at one place, done by each contender once a round.

    Attributes:
        work: what was done; empty if the benchmark has only one.
        where: the place, in words that are the same on every machine; empty if there is only one.
        cores: which, if it matters.
        unit: of the figures.
        figures: by contender, one a round.
        ratios: within the rounds.
        cannot: by name, who cannot do this work, or was not measured, and why.
    """

    work: str
    where: str
    cores: Cores | None
    figures: dict[str, list[float]]
    unit: Unit = "second"
    ratios: list[Ratio] = dataclasses.field(default_factory=list)
    cannot: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Work and place."""
        return ", ".join(filter(None, (self.work, self.where)))

    def compare(self, subject: str, base: str, target: float | None = None) -> None:
        """Adds a ratio."""
        own, other = self.figures[subject], self.figures[base]
        self.ratios.append(Ratio(subject, base, [a / b for a, b in zip(own, other, strict=True)], target))


@dataclasses.dataclass
class Report:
    """All of a benchmark.

    Attributes:
        comparisons: in the order in which they are shown.
        notes: lines about what was not measured, and why.
        pictures: SVG by file name.
        settings: what else the figures depend on.
    """

    comparisons: list[Comparison] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    pictures: dict[str, str] = dataclasses.field(default_factory=dict)
    settings: dict[str, str | int] = dataclasses.field(default_factory=dict)


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every contender once per round, so that what else the machine does meets them all alike.

    Every other round goes backwards: nobody always runs after the same other one.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in reversed(figures) if number % 2 else figures:
            figures[name].append(contenders[name]())
    return figures
