"""A look as a picture: processes as boxes with what they serve, and arrows to those who hold it; what is stuck is red.

Light or dark as the reader's system is, on a ground of its own.
"""

from __future__ import annotations

import unicodedata
from html import escape
from typing import TYPE_CHECKING

from capmarshal._inspect import words
from capmarshal._inspect.graph import graph_of
from capmarshal._inspect.layout import laid_out
from capmarshal._inspect.table import notes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._inspect.graph import Box, Graph
    from capmarshal._inspect.layout import Layout, Place
    from capmarshal._inspect.view import View

# Told apart also by the colour-blind: of the palette of Okabe and Ito; what is stuck has thicker lines besides.
_NAMES = "text", "dim", "line", "box", "ground", "arrow", "stuck"
_LIGHT = "#222222", "#666666", "#aaaaaa", "#f6f6f6", "#ffffff", "#0072b2", "#d00000"
_DARK = "#dddddd", "#999999", "#666666", "#222222", "#161616", "#56b4e9", "#ff5c5c"

# A character of the font, and lines of it, in pixels.
_FONT, _CHARACTER, _TITLE, _LINE, _PADDING = 12, 7.3, 28.0, 22.0, 10.0
_BORDER, _NOTE = 24.0, 20.0
_LEGEND = "an arrow goes from who serves to who holds a capability of it; what is stuck is red"


def as_svg(view: View) -> str:
    """One picture."""
    graph = graph_of(view)
    sizes = {box.key: (_width(box), _TITLE + _LINE * len(box.rows)) for box in graph.boxes.values()}
    layout = laid_out(sizes, [(arrow.row.box, arrow.to) for arrow in graph.arrows])
    below = [_LEGEND, *notes(view)]
    width = max(layout.width, *(len(note) * _CHARACTER for note in below)) + 2 * _BORDER
    height = layout.height + 2 * _BORDER + _NOTE * (len(below) + 1)
    light, dark = (
        "".join(f"--{name}:{colour};" for name, colour in zip(_NAMES, colours, strict=True))
        for colours in (_LIGHT, _DARK)
    )
    style = (
        f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"text{{font:{_FONT}px ui-monospace,monospace;fill:var(--text);white-space:pre}}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">',
        f"<title>Who serves, and who holds what</title><style>{style}</style>",
        f"<defs>{_head('arrow')}{_head('stuck')}</defs>",
        f'<rect width="{width:.0f}" height="{height:.0f}" style="fill:var(--ground)"/>',
        f'<g transform="translate({_BORDER:.0f} {_BORDER:.0f})">',
        *_arrows(graph, layout),
        *(part for box in graph.boxes.values() for part in _box(box, layout.boxes[box.key])),
        "</g>",
    ]
    y = layout.height + 2 * _BORDER + _NOTE
    for note in below:
        parts.append(_text(_BORDER, y, note, "dim"))
        y += _NOTE
    return "\n".join([*parts, "</svg>\n"])


def _columns(text: str) -> int:
    """How wide it is, in characters."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _width(box: Box) -> float:
    longest = max(map(_columns, [box.title, *(words.row(row.door, row.notes) for row in box.rows)]))
    return longest * _CHARACTER + 2 * _PADDING


def _head(colour: str) -> str:
    size = 'markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse"'
    return (
        f'<marker id="{colour}" viewBox="0 0 8 8" refX="7" refY="4" {size} orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" style="fill:var(--{colour})"/></marker>'
    )


def _text(x: float, y: float, text: str, colour: str = "text", *, bold: bool = False) -> str:
    weight = ";font-weight:bold" if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" style="fill:var(--{colour}){weight}">{escape(text, quote=False)}</text>'


def _box(box: Box, place: Place) -> Iterator[str]:
    line, width = ("stuck", 2.5) if box.stuck else ("line", 1)
    yield (
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" rx="5" '
        f'style="fill:var(--box);stroke:var(--{line});stroke-width:{width}"/>'
    )
    x, y = place.x + _PADDING, place.y
    yield _text(x, y + 18, box.title, "stuck" if box.stuck else "text", bold=True)
    y += _TITLE
    for row in box.rows:
        yield f'<path d="M{place.x:.1f} {y:.1f} h{place.width:.1f}" style="stroke:var(--line);stroke-width:0.5"/>'
        name = words.door(row.door)
        yield _text(x, y + 15, name, "stuck" if row.stuck else "text")
        if row.notes:
            notes_x = x + _columns(name + words.BETWEEN) * _CHARACTER
            yield _text(notes_x, y + 15, words.BETWEEN.join(row.notes), "stuck" if row.stuck else "dim")
        y += _LINE


def _arrows(graph: Graph, layout: Layout) -> Iterator[str]:
    starts = {id(row): number for box in graph.boxes.values() for number, row in enumerate(box.rows)}
    for arrow, bends in zip(graph.arrows, layout.bends, strict=True):
        start, end = layout.boxes[arrow.row.box], layout.boxes[arrow.to]
        to_the_right = start.layer < end.layer
        y = start.y + _TITLE + _LINE * (starts[id(arrow.row)] + 0.5)
        points = [(start.x + start.width if to_the_right else start.x, y)]
        for bend in bends:
            ends = [(bend.x, bend.middle), (bend.x + bend.width, bend.middle)]
            points += ends if to_the_right else reversed(ends)
        points.append((end.x if to_the_right else end.x + end.width, end.y + _TITLE / 2))
        colour, width = ("stuck", 2) if arrow.stuck else ("arrow", 1.2)
        yield (
            f'<path d="{_curve(points)}" marker-end="url(#{colour})" '
            f'style="fill:none;stroke:var(--{colour});stroke-width:{width}"/>'
        )


def _curve(points: list[tuple[float, float]]) -> str:
    """Through all of them, level at each."""
    (x, y), *rest = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in rest:
        middle = (x + next_x) / 2
        parts.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {next_y:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    return " ".join(parts)
