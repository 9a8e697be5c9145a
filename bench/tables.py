"""The figures as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figures import Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.figures import Comparison, Ratio, Report, Unit


def time(seconds: float) -> str:
    """With three digits, in the unit that suits it."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        # Else three digits would round it to 1e+03.
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def size(count: float) -> str:
    """Bytes, in the largest unit of which there is one at least; a whole number of it without digits after."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB"):
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return f"{count:.0f} {unit}" if count == int(count) else f"{count:.3g} {unit}"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 99.995 else f"{value:.0f}"


_WORDS: dict[Unit, Callable[[float], str]] = {"second": time, "byte": size}


def spread(values: Sequence[float], in_words: Callable[[float], str]) -> str:
    """Median, and quartiles in parentheses."""
    lower, median, upper = map(in_words, Spread.of(values))
    return f"{median:>8}  ({lower} - {upper})"


def _verdict(ratio: Ratio) -> str:
    if ratio.target is None:
        return ""
    return f"target {ratio.target:g}: {'reached' if ratio.reached else 'MISSED'}"


def _inline(compared: Comparison) -> str:
    """To whom all ratios of a comparison are, where they fit into a column."""
    bases = {ratio.base for ratio in compared.ratios}
    subjects = [ratio.subject for ratio in compared.ratios]
    plain = all(ratio.target is None for ratio in compared.ratios)
    return bases.pop() if plain and len(bases) == 1 and len(set(subjects)) == len(subjects) else ""


def _lines(compared: Comparison) -> list[str]:
    """One comparison's table."""
    base = _inline(compared)
    by_subject = {ratio.subject: ratio for ratio in compared.ratios} if base else {}
    below = [] if base else compared.ratios
    names = [*compared.figures, *compared.cannot, *(f"{ratio.subject} / {ratio.base}" for ratio in below)]
    width = max(map(len, names), default=0)
    title = compared.name
    if compared.cores is not None:
        title = title.replace(compared.cores.kind, str(compared.cores))
    lines = [f"\n{title}" + (f"{'':{max(width + 38 - len(title), 2)}}times {base}" if base else "")]
    for name, values in compared.figures.items():
        figure = spread(values, _WORDS[compared.unit])
        ratio = by_subject.get(name)
        beside = spread(ratio.values, _number) if ratio else ""
        lines.append(f"  {name:{width}}  {figure:32}  {beside}".rstrip())
    lines += [f"  {name:{width}}  {why}" for name, why in compared.cannot.items()]
    for ratio in below:
        what = f"{ratio.subject} / {ratio.base}"
        lines.append(f"  {what:{width}}  {spread(ratio.values, _number):32}  {_verdict(ratio)}".rstrip())
    return lines


def print_report(name: str, report: Report) -> None:
    """All of a benchmark."""
    settings = ", ".join(f"{what} {value}" for what, value in report.settings.items())
    print(f"\n== {name}" + (f": {settings}" if settings else ""))
    for compared in report.comparisons:
        print("\n".join(_lines(compared)))
    if report.notes:
        print("\nnot measured")
        for note in report.notes:
            print(f"  {note}")
