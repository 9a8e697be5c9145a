"""Bar charts of comparisons, as SVG: a panel for each place, a bar with its quartiles for each contender."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import conditions, svg, tables
from bench.figures import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.figures import Comparison

_WIDTH, _LEFT, _RIGHT = 900, 330, 780
_EDGE, _TOP, _LINE, _BAR, _BETWEEN = 24, 76, 26, 16, 34
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
        parts.append(svg.text(_EDGE, top + 12, compared.name))
        top += _LINE
        spreads = {name: Spread.of(values) for name, values in compared.figures.items()}
        scale = (_RIGHT - _LEFT) / max(spread.upper for spread in spreads.values())
        for name, spread in spreads.items():
            parts += _bar(name, spread, scale, top)
            top += _LINE
        for name, why in compared.cannot.items():
            parts.append(svg.text(_LEFT - 10, top + 13, name, "end"))
            # There is no room for the reason.
            parts.append(svg.text(_LEFT, top + 13, why.partition(":")[0], css="small"))
            top += _LINE
        top += _BETWEEN
    subtitle = f"{conditions.briefly()}; medians, and quartiles"
    return svg.picture(_WIDTH, top, _EDGE, title, subtitle, parts)


def _bar(name: str, spread: Spread, scale: float, top: float) -> list[str]:
    colour = _OWN if name.startswith("capmarshal") else _OTHER
    lower, middle, upper = (_LEFT + value * scale for value in spread)
    return [
        svg.text(_LEFT - 10, top + 13, name, "end"),
        f'<rect class="bar{colour}" x="{_LEFT}" y="{top}" width="{middle - _LEFT:.1f}" height="{_BAR}"/>',
        svg.path([(lower, top + _BAR / 2), (upper, top + _BAR / 2)], "whisker"),
        svg.text(max(middle, upper) + 8, top + 13, tables.time(spread.median)),
    ]
