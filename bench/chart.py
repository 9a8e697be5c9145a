"""Line charts with two logarithmic axes, as SVG: no more than the benchmark `transfer` needs."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from bench import svg

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WIDTH, _HEIGHT = 900, 500
# Of the plot; to its right stand the names of the lines.
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 610, 76, 450
# Between the baselines of two names.
_LINE = 18
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
        places[after] = max(places[after], places[before] + _LINE)
    # Moved down too far: up again, from the last one.
    limit = most
    for index in reversed(order):
        places[index] = max(min(places[index], limit), least)
        limit = places[index] - _LINE
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
    across = _Axis([*x_ticks, *(x for points in lines.values() for x, _ in points)], _LEFT, _RIGHT)
    up = _Axis([10.0**power for power in powers], _BOTTOM, _TOP)
    parts: list[str] = []
    for power in powers:
        y = up.place(10.0**power)
        parts.append(svg.path([(_LEFT, y), (_RIGHT, y)], "grid"))
        parts.append(svg.text(_LEFT - 8, y + 4, y_label(10.0**power), "end"))
    for value, label in x_ticks.items():
        x = across.place(value)
        parts.append(svg.path([(x, _BOTTOM), (x, _TOP)], "grid"))
        parts.append(svg.text(x, _BOTTOM + 20, label, "middle"))
    placed = [[(across.place(x), up.place(y)) for x, y in points] for points in lines.values()]
    names = _spread([points[-1][1] for points in placed], _TOP, _BOTTOM)
    for name, points, y in zip(lines, placed, names, strict=True):
        i = colours[name]
        parts.append(svg.path([points[-1], (_RIGHT + 4, points[-1][1]), (_RIGHT + 18, y)], f"leader line{i}"))
        parts.append(svg.path(points, f"line line{i}"))
        parts += [f'<circle class="dot{i}" cx="{x:.1f}" cy="{height:.1f}" r="2.8"/>' for x, height in points]
        parts.append(svg.text(_RIGHT + 24, y + 4, name, css=f"name{i}"))
    return svg.picture(_WIDTH, _HEIGHT, _LEFT, title, subtitle, parts)
