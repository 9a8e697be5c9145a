"""The charts, as SVG: light or dark as the reader's system is, on a background of its own."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

from bench import conditions, tables
from bench.measuring import Comparison, Spread

# Light and dark of each line or bar: of the palette of Okabe and Ito, told apart also by the colour-blind.
_COLOURS = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#007a5a", "#2fc79b"),
    ("#a8497f", "#e59ac6"),
    ("#555555", "#bbbbbb"),
]


def _style() -> str:
    def rules(text: str, faint: str, ground: str, colours: Sequence[str]) -> str:
        fixed = f".ground{{fill:{ground}}}text{{fill:{text}}}.grid{{stroke:{faint}}}.whisker{{stroke:{text}}}"
        return fixed + "".join(
            f".line{i}{{stroke:{colour}}}.dot{i},.bar{i},text.name{i}{{fill:{colour}}}"
            for i, colour in enumerate(colours)
        )

    light = rules("#222222", "#dddddd", "#ffffff", [light for light, _ in _COLOURS])
    dark = rules("#dddddd", "#3a3a3a", "#161616", [dark for _, dark in _COLOURS])
    return (
        "text{font:13px sans-serif}.title{font-size:16px;font-weight:bold}.small{font-size:12px}"
        ".line{fill:none;stroke-width:2.2;stroke-linejoin:round}.leader{fill:none;stroke-width:1;stroke-dasharray:1 3}"
        f"{light}@media(prefers-color-scheme:dark){{{dark}}}"
    )


def _text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(words)}</text>'


def _path(points: Sequence[tuple[float, float]], css: str) -> str:
    """Straight lines from point to point."""
    return f'<path class="{css}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def _picture(width: int, height: int, left: int, title: str, subtitle: str, parts: Sequence[str]) -> str:
    """The whole of it, with two lines above everything."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{_style()}</style>",
            f'<rect class="ground" width="{width}" height="{height}"/>',
            _text(left, 28, title, css="title"),
            _text(left, 50, subtitle, css="small"),
            *parts,
            "</svg>",
            "",
        ]
    )


_WIDTH, _BARS_LEFT, _BARS_RIGHT = 900, 330, 780
_EDGE, _TOP, _BARS_LINE, _BAR, _BETWEEN = 24, 76, 26, 16, 34
# capmarshal's own bars, and the others'.
_OWN, _OTHER = 0, 4


def bar_chart(title: str, comparisons: Sequence[Comparison]) -> str:
    """Bars as long as the medians; each panel has a scale of its own, which its numbers say.

    Args:
        title: first line.
        comparisons: a panel each, from top to bottom.

    Returns:
        the SVG.
    """
    parts: list[str] = []
    top = _TOP
    for compared in comparisons:
        parts.append(_text(_EDGE, top + 12, compared.name))
        top += _BARS_LINE
        spreads = {name: Spread.of(values) for name, values in compared.figures.items()}
        scale = (_BARS_RIGHT - _BARS_LEFT) / max(spread.upper for spread in spreads.values())
        for name, spread in spreads.items():
            parts += _bar(name, spread, scale, top)
            top += _BARS_LINE
        for name, why in compared.cannot.items():
            parts.append(_text(_BARS_LEFT - 10, top + 13, name, "end"))
            # There is no room for the reason.
            parts.append(_text(_BARS_LEFT, top + 13, why.partition(":")[0], css="small"))
            top += _BARS_LINE
        top += _BETWEEN
    subtitle = f"{conditions.briefly()}; medians, and quartiles"
    return _picture(_WIDTH, top, _EDGE, title, subtitle, parts)


def _bar(name: str, spread: Spread, scale: float, top: float) -> list[str]:
    colour = _OWN if name.startswith("capmarshal") else _OTHER
    lower, middle, upper = (_BARS_LEFT + value * scale for value in spread)
    return [
        _text(_BARS_LEFT - 10, top + 13, name, "end"),
        f'<rect class="bar{colour}" x="{_BARS_LEFT}" y="{top}" width="{middle - _BARS_LEFT:.1f}" height="{_BAR}"/>',
        _path([(lower, top + _BAR / 2), (upper, top + _BAR / 2)], "whisker"),
        _text(max(middle, upper) + 8, top + 13, tables.time(spread.median)),
    ]


_HEIGHT = 500
# Of the plot; to its right stand the names of the lines.
_LINES_LEFT, _LINES_RIGHT, _BOTTOM = 70, 610, 450
# Between the baselines of two names.
_NAME = 18
# A zero has no logarithm: it stands so much left of the smallest other value.
_ZERO_STEP = math.log10(4)


class _Axis:
    """From values to places on the picture."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        positive = [math.log10(value) for value in values if value > 0]
        self._least = min(positive) - (_ZERO_STEP if min(values) == 0 else 0)
        self._zero = self._least
        self._scale = (end - start) / (max(positive) - self._least)
        self._start = start

    def place(self, value: float) -> float:
        """Where a value stands."""
        return self._start + ((math.log10(value) if value > 0 else self._zero) - self._least) * self._scale


def _spread(wanted: Sequence[float], least: float, most: float) -> list[float]:
    """Places as near to the wanted ones as they can be without two of them being too near each other."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = list(wanted)
    for before, after in itertools.pairwise(order):
        places[after] = max(places[after], places[before] + _NAME)
    # Moved down too far: up again, from the last one.
    limit = most
    for index in reversed(order):
        places[index] = max(min(places[index], limit), least)
        limit = places[index] - _NAME
    return places


def line_chart(
    title: str,
    subtitle: str,
    x_ticks: Mapping[int, str],
    y_label: Callable[[float], str],
    lines: Mapping[str, Sequence[tuple[float, float]]],
    colours: Mapping[str, int],
) -> str:
    """A chart with both axes logarithmic.

    Args:
        title: first line.
        subtitle: second line, smaller.
        x_ticks: values of the horizontal axis and what stands under them; one of them may be 0.
        y_label: what stands at a power of ten of the vertical axis.
        lines: by name, their points from left to right.
        colours: by name, which of the five.

    Returns:
        the SVG.
    """
    heights = [y for points in lines.values() for _, y in points]
    powers = range(math.floor(math.log10(min(heights))), math.ceil(math.log10(max(heights))) + 1)
    across = _Axis([*x_ticks, *(x for points in lines.values() for x, _ in points)], _LINES_LEFT, _LINES_RIGHT)
    up = _Axis([10.0**power for power in powers], _BOTTOM, _TOP)
    parts: list[str] = []
    for power in powers:
        y = up.place(10.0**power)
        parts.append(_path([(_LINES_LEFT, y), (_LINES_RIGHT, y)], "grid"))
        parts.append(_text(_LINES_LEFT - 8, y + 4, y_label(10.0**power), "end"))
    for value, label in x_ticks.items():
        x = across.place(value)
        parts.append(_path([(x, _BOTTOM), (x, _TOP)], "grid"))
        parts.append(_text(x, _BOTTOM + 20, label, "middle"))
    placed = [[(across.place(x), up.place(y)) for x, y in points] for points in lines.values()]
    names = _spread([points[-1][1] for points in placed], _TOP, _BOTTOM)
    for name, points, y in zip(lines, placed, names, strict=True):
        i = colours[name]
        parts.append(_path([points[-1], (_LINES_RIGHT + 4, points[-1][1]), (_LINES_RIGHT + 18, y)], f"leader line{i}"))
        parts.append(_path(points, f"line line{i}"))
        parts += [f'<circle class="dot{i}" cx="{x:.1f}" cy="{height:.1f}" r="2.8"/>' for x, height in points]
        parts.append(_text(_LINES_RIGHT + 24, y + 4, name, css=f"name{i}"))
    return _picture(_WIDTH, _HEIGHT, _LINES_LEFT, title, subtitle, parts)
