"""The figures as people read them."""

from collections.abc import Callable, Sequence

from bench.measuring import Comparison, Ratio, Report, Spread


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


_WORDS = {"second": time, "byte": size}


def spread(values: Sequence[float], in_words: Callable[[float], str]) -> str:
    """Median, and quartiles in parentheses."""
    lower, median, upper = map(in_words, Spread.of(values))
    return f"{median:>8}  ({lower} - {upper})"


def _verdict(ratio: Ratio) -> str:
    if ratio.target is None:
        return ""
    return f"target {ratio.target:g}: {'reached' if ratio.reached else 'MISSED'}"


def _column(compared: Comparison) -> dict[str, Ratio]:
    """By subject, what stands beside the figures: several multiples of one and the same, without a target."""
    plain = {ratio.subject: ratio for ratio in compared.ratios if ratio.target is None}
    return plain if len(plain) > 1 and len({ratio.base for ratio in plain.values()}) == 1 else {}


def _lines(compared: Comparison) -> list[str]:
    """One comparison's table."""
    beside = _column(compared)
    below = {
        f"{ratio.subject} / {ratio.base}": ratio for ratio in compared.ratios if beside.get(ratio.subject) is not ratio
    }
    width = max(map(len, (*compared.figures, *compared.cannot, *below)), default=0)
    title = compared.name
    if compared.cores is not None:
        title = title.replace(compared.cores.kind, str(compared.cores))
    base = next((f"times {ratio.base}" for ratio in beside.values()), "")
    lines = ["", f"{title:{width + 36}}  {base}".rstrip()]
    for name, values in compared.figures.items():
        ratio = beside.get(name)
        column = spread(ratio.values, _number) if ratio else ""
        lines.append(f"  {name:{width}}  {spread(values, _WORDS[compared.unit]):32}  {column}".rstrip())
    lines += [f"  {name:{width}}  {why}" for name, why in compared.cannot.items()]
    for name, ratio in below.items():
        lines.append(f"  {name:{width}}  {spread(ratio.values, _number):32}  {_verdict(ratio)}".rstrip())
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
