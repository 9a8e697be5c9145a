"""The charts, as SVG: light or dark as the reader's system is, on a background of its own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from xml.sax.saxutils import escape

from bench.figures import briefly, in_words
from bench.measuring import Work, quartiles

# Text, grid, ground; then lines or bars: of the palette of Okabe and Ito, told apart also by the colour-blind.
_LIGHT = "#222222", "#dddddd", "#ffffff", "#0072b2", "#d55e00", "#007a5a", "#a8497f", "#555555"
_DARK = "#dddddd", "#3a3a3a", "#161616", "#56b4e9", "#ff8c42", "#2fc79b", "#e59ac6", "#bbbbbb"
_NAMES = "text", "grid", "ground", "0", "1", "2", "3", "4"
# capmarshal's own bars, and the others'.
_OWN, _OTHER = "0", "4"

_WIDTH, _LEFT, _TOP = 900, 24, 76


def _picture(height: float, title: str, parts: Iterator[str]) -> str:
    """The whole of it, with two lines above everything."""
    light, dark = (
        "".join(f"--{name}:{colour};" for name, colour in zip(_NAMES, colours, strict=True))
        for colours in (_LIGHT, _DARK)
    )
    style = f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}text{{font:13px sans-serif}}"
    above = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img">',
        f"<title>{escape(title)}</title><style>{style}</style>",
        _box(0, 0, _WIDTH, height, "ground"),
        _text(_LEFT, 28, title, style="font-size:16px;font-weight:bold"),
        _text(_LEFT, 50, briefly()),
    )
    return "\n".join([*above, *parts, "</svg>\n"])


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = "text", style: str = "") -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {at} style="fill:var(--{colour});{style}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {size} style="fill:var(--{colour})"/>'


def _path(points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> str:
    """Straight lines from point to point."""
    style = f"fill:none;stroke:var(--{colour});stroke-width:{width}"
    return f'<path style="{style}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def bar_chart(title: str, works: Sequence[Work]) -> str:
    """A panel for each work, with bars as long as the medians, and quartiles; each has a scale of its own."""
    left, right, line, bar = 330, 780, 26, 16

    def parts() -> Iterator[str]:
        top = _TOP
        for work in works:
            yield _text(_LEFT, top + 12, work.name)
            scale = (right - left) / max(quartiles(values)[-1] for values in work.figures.values())
            for name, values in work.figures.items():
                top += line
                lower, middle, upper = (left + value * scale for value in quartiles(values))
                yield _text(left - 10, top + 13, name, "end")
                yield _box(left, top, middle - left, bar, _OWN if name.startswith("capmarshal") else _OTHER)
                yield _path([(lower, top + bar / 2), (upper, top + bar / 2)], "text")
                yield _text(upper + 8, top + 13, in_words(median(values)))
            for name, why in work.cannot.items():
                top += line
                yield _text(left - 10, top + 13, name, "end")
                # There is no room for the reason.
                yield _text(left, top + 13, why.partition(":")[0])
            top += 2 * line

    lines = sum(len(work.figures) + len(work.cannot) + 2 for work in works)
    return _picture(_TOP + line * lines, title, parts())


def line_chart(title: str, ticks: Mapping[int, str], figures: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    """Medians, both axes logarithmic; the figures by place on the horizontal one, from left to right, and by name.

    Ticks are what stands under that axis, and where; one of them may be 0.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for amount, by_name in figures.items():
        for name, values in by_name.items():
            lines.setdefault(name, []).append((amount, median(values)))
    left, right, bottom = 70, 610, 450
    heights = [math.log10(y) for points in lines.values() for _, y in points]
    lowest, highest = math.floor(min(heights)), math.ceil(max(heights))
    first, *_, last = figures

    def along(x: float) -> float:
        # A zero has no logarithm: it stands where a quarter of the smallest other value would.
        return math.log10(x or min(amount for amount in figures if amount) / 4)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (along(x) - along(first)) / (along(last) - along(first))
        up = (math.log10(y) - lowest) / (highest - lowest)
        return left + across * (right - left), bottom - up * (bottom - _TOP)

    def parts() -> Iterator[str]:
        for y in (10.0**power for power in range(lowest, highest + 1)):
            yield _path([place(first, y), place(last, y)], "grid")
            yield _text(left - 8, place(first, y)[1] + 4, in_words(y), "end")
        for amount, words in ticks.items():
            x, _ = place(amount, 1)
            yield _path([(x, bottom), (x, _TOP)], "grid")
            yield _text(x, bottom + 20, words, "middle")
        # Names stand where their lines end, or below the name before.
        free = 0.0
        for name, points in sorted(lines.items(), key=lambda line: -line[1][-1][1]):
            colour = str(list(lines).index(name))
            yield _path([place(*point) for point in points], colour, 2.2)
            free = max(place(*points[-1])[1] + 4, free + 18)
            yield _text(right + 8, free, name, colour=colour)

    return _picture(bottom + 100, title, parts())
