"""How it is measured: contenders in turns, round by round; spreads, and ratios within a round."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any, Literal, NamedTuple, TypeVar

from bench.processes import Cores, places, run_on

Unit = Literal["second", "byte"]
T = TypeVar("T")


def quartiles(values: Sequence[float]) -> list[float]:
    """The lower one, the median and the upper one of two values or more."""
    return statistics.quantiles(values, n=4, method="inclusive")


class Goal(NamedTuple):
    """A ratio that is shown: of whom, to whom, and what its median is to be: so much, or less."""

    subject: str
    base: str
    target: float | None = None


def against(subject: str, bases: Iterable[str], targets: Mapping[str, float]) -> list[Goal]:
    """One contender as a multiple of others, with a target for some of them."""
    return [Goal(subject, base, targets.get(base)) for base in bases if base != subject]


class Row(NamedTuple):
    """What is shown and kept: one value a round."""

    name: str
    values: list[float]
    unit: Unit | None  # None of a ratio
    target: float | None = None


@dataclass
class Work:
    """A kind of work at one place, done by each contender once a round."""

    name: str  # what is done and where, in words that are the same on every machine
    cores: Cores | None  # if it matters
    contenders: Mapping[str, Callable[[], float]]  # each measures itself once, and says what one took
    goals: Sequence[Goal] = ()
    cannot: dict[str, str] = field(default_factory=dict)  # who cannot do it, or was not measured, and why
    unit: Unit = "second"
    each_round: Callable[[], AbstractContextManager[object]] = nullcontext  # entered for each
    there_and_back: bool = False  # each is measured twice a round, so that none of them is always the first
    figures: dict[str, list[float]] = field(default_factory=dict)  # by contender, one a round

    def measure(self, rounds: int) -> None:
        """Measures every contender once per round, so that what else the machine does meets them all alike.

        Every other round goes backwards: nobody always runs after the same other one.
        """
        self.figures = {name: [] for name in self.contenders}
        for number in range(rounds):
            order = list(self.contenders)[:: -1 if number % 2 else 1]
            with self.each_round():
                for name in order:
                    self.figures[name].append(self.contenders[name]())
                for name in reversed(order if self.there_and_back else []):
                    self.figures[name][-1] = (self.figures[name][-1] + self.contenders[name]()) / 2
        for name in [name for name, values in self.figures.items() if min(values) <= 0]:
            del self.figures[name]
            self.cannot[name] = "less than what can be seen beside all else"

    def rows(self) -> Iterator[Row]:
        """Of each contender; and the ratios of whom both were measured, round by round."""
        for name, values in self.figures.items():
            yield Row(name, values, self.unit)
        for subject, base, target in self.goals:
            if subject in self.figures and base in self.figures:
                ratios = [a / b for a, b in zip(self.figures[subject], self.figures[base], strict=True)]
                yield Row(f"{subject} / {base}", ratios, None, target)


@dataclass
class Report:
    """A benchmark as it goes on: what it is asked, where it is, and all that it has found."""

    quick: bool  # tiny counts are asked for: whether it works, not how fast
    works: list[Work] = field(default_factory=list)  # in the order in which they were measured and are shown
    missing: dict[str, str] = field(default_factory=dict)  # what was not measured, and why
    pictures: dict[str, str] = field(default_factory=dict)  # SVG by file name
    settings: dict[str, str | int] = field(default_factory=dict)  # what else the figures depend on
    cores: Cores = field(default_factory=lambda: places()[0])  # where it is measured now
    stack: ExitStack = field(default_factory=ExitStack)  # what is left when it is measured elsewhere

    def either(self, usual: T, quick: T) -> T:
        """How much there is to do."""
        return quick if self.quick else usual

    def loops(self, usual: int, quick: int) -> int:
        """How often a contender does it each time that it is measured; kept with the figures."""
        self.settings["loops"] = self.either(usual, quick)
        return self.either(usual, quick)

    def enter(self, manager: AbstractContextManager[T]) -> T:
        """Enters it as long as it is measured here."""
        return self.stack.enter_context(manager)

    def work(
        self, kind: str, contenders: Mapping[str, Callable[[], float]], goals: Sequence[Goal], **options: Any
    ) -> Work:
        """Of this kind, here; the options are those of :class:`Work`."""
        return Work(f"{kind}, {self.cores.kind}" if kind else self.cores.kind, self.cores, contenders, goals, **options)

    def can(self, needed: Mapping[str, str]) -> list[str]:
        """Who can be measured of those who cannot where there is a reason, which is noted."""
        self.missing |= {name: why for name, why in needed.items() if why}
        return [name for name, why in needed.items() if not why]


class Benchmark(NamedTuple):
    """What can be asked for by its name."""

    takes: str  # how long
    rounds: int
    everywhere: bool  # at each place, or only at the first one
    works: Callable[[Report], Iterator[Work]]  # at one place; each is measured before it is asked for the next

    @property
    def words(self) -> str:
        """What it is, in a line."""
        return (self.works.__doc__ or "").partition("\n")[0]

    def measure(self, report: Report, rounds: int = 0) -> None:
        """Measures all of it."""
        for report.cores in places()[: None if self.everywhere else 1]:
            with ExitStack() as report.stack:
                report.stack.callback(run_on)
                for work in self.works(report):
                    work.measure(rounds or report.either(self.rounds, 2))
                    report.works.append(work)


def benchmark(
    takes: str, rounds: int, *, everywhere: bool = True
) -> Callable[[Callable[[Report], Iterator[Work]]], Benchmark]:
    """Makes one of the function below."""
    return lambda works: Benchmark(takes, rounds, everywhere, works)


def not_installed(*packages: str) -> dict[str, str]:
    """By name, as it is installed, why each cannot be used here; empty if it can."""
    return {name: "" if any(metadata.distributions(name=name)) else f"{name} is not installed" for name in packages}


def warm_up(times: int) -> int:
    """How often something is done, untimed, before it is timed so often."""
    return times // 10 + 1


def seconds(batch: Callable[[int], object], times: int) -> float:
    """Seconds for one of so many, which are done at once, after an untimed warm-up."""
    for repeats in (warm_up(times), times):
        begin = time.perf_counter_ns()
        batch(repeats)
        taken = time.perf_counter_ns() - begin
    return taken / times / 1e9


def often(deed: Callable[[], object], times: int, settle: Callable[[], object] | None = None) -> float:
    """Seconds for doing it once; ``settle`` waits for what was left to be done later."""
    return seconds(partial(_repeat, deed, settle), times)


def _repeat(deed: Callable[[], object], settle: Callable[[], object] | None, times: int) -> None:
    for _ in itertools.repeat(None, times):
        deed()
    if settle is not None:
        settle()


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
