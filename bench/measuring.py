"""How it is measured: contenders in turns, round by round; spreads, and ratios within a round."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

from bench import places
from bench.places import Cores

# By place: the most that a ratio's median may be.
Targets = Mapping[str, float]


class Settings(NamedTuple):
    """What the command line asks of a benchmark.

    Attributes:
        rounds: how often each contender is measured; 0: as often as the benchmark does by itself.
        quick: tiny counts: whether it works, not how fast.
    """

    rounds: int
    quick: bool

    def rounds_or(self, usual: int) -> int:
        """How often."""
        return self.rounds or (2 if self.quick else usual)


class Spread(NamedTuple):
    """Median and quartiles."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
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
        figures: by contender, one a round.
        unit: of the figures.
        ratios: within the rounds.
        cannot: by name, who cannot do this work, or was not measured, and why.
    """

    work: str
    where: str
    cores: Cores | None
    figures: dict[str, list[float]]
    unit: Literal["second", "byte"] = "second"
    ratios: list[Ratio] = dataclasses.field(default_factory=list)
    cannot: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Work and place."""
        return ", ".join(filter(None, (self.work, self.where)))

    def compare(self, subject: str, base: str, target: float | None = None) -> None:
        """Adds a ratio, where both were measured."""
        if subject in self.figures and base in self.figures:
            values = [a / b for a, b in zip(self.figures[subject], self.figures[base], strict=True)]
            self.ratios.append(Ratio(subject, base, values, target))


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


class Goal(NamedTuple):
    """A ratio that is shown: of whom, to whom, and what it is to be where."""

    subject: str
    base: str
    targets: Targets = MappingProxyType({})


class Work(NamedTuple):
    """A kind of work.

    Attributes:
        name: empty if the benchmark has only one.
        contenders: by name; each measures itself once, and says the seconds that one took.
        goals: what is compared.
        cannot: by name, who cannot do it, and why.
    """

    name: str
    contenders: Mapping[str, Callable[[], float]]
    goals: Sequence[Goal]
    cannot: Mapping[str, str] = MappingProxyType({})


def everywhere(target: float) -> Targets:
    """The same target at each place."""
    return dict.fromkeys(places.PLACES, target)


def against(subject: str, bases: Iterable[str], targets: Mapping[str, Targets]) -> list[Goal]:
    """One contender as a multiple of others, with a target for some of them."""
    return [Goal(subject, base, targets.get(base, {})) for base in bases if base != subject]


def measure(works: Callable[[Cores], Iterable[Work]], rounds: int) -> list[Comparison]:
    """Measures kinds of work at each place; ``works`` has the processes run there, and says which."""
    made = []
    for cores in places.places():
        for work in works(cores):
            figures = interleave(work.contenders, rounds)
            compared = Comparison(work.name, cores.kind, cores, figures, cannot=work.cannot)
            for goal in work.goals:
                compared.compare(goal.subject, goal.base, goal.targets.get(cores.kind))
            made.append(compared)
    return made


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every contender once per round, so that what else the machine does meets them all alike.

    Every other round goes backwards: nobody always runs after the same other one.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in reversed(figures) if number % 2 else figures:
            figures[name].append(contenders[name]())
    return figures


def nothing() -> None:
    """Most contenders leave nothing to be done later."""


def often(deed: Callable[[], object], times: int, settle: Callable[[], object] = nothing) -> float:
    """Seconds for doing it once, after an untimed warm-up; ``settle`` waits for what was left to be done later."""
    for repeats in (times // 10 + 1, times):
        begin = time.perf_counter_ns()
        for _ in range(repeats):
            deed()
        settle()
        taken = time.perf_counter_ns() - begin
    return taken / times / 1e9


def checked(call: Callable[..., object], arguments: tuple[object, ...], expected: object) -> Callable[[], None]:
    """A call whose result is checked."""

    def deed() -> None:
        if call(*arguments) != expected:
            raise SystemExit("a wrong result came")

    return deed


def adding(add: Callable[[int, int], int]) -> Callable[[], None]:
    """A sum that is checked; by itself, since :func:`checked` takes a little longer, which would show."""

    def deed() -> None:
        if add(1, 2) != 3:
            raise SystemExit("a wrong result came")

    return deed
