"""A look as Graphviz reads it: a box for each process, and an arrow from who serves to who may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._inspect import words
from capmarshal._inspect.graph import graph_of

if TYPE_CHECKING:
    from capmarshal._inspect.view import View

_FONT = 'fontname="sans-serif"'
_HEAD = f"digraph capmarshal {{\n  rankdir=LR;\n  node [shape=box, {_FONT}];\n  edge [{_FONT}];\n"
# Never in a label, which is printable; the end of a line that begins at the left.
_LEFT = "\n"
_STUCK = ", color=red, fontcolor=red"


def as_dot(view: View) -> str:
    """One digraph."""
    graph = graph_of(view)
    lines = [_HEAD]
    for box in graph.boxes.values():
        look = _STUCK if box.stuck else ""
        # What it serves below its name, each in a line of its own that begins at the left.
        label = _LEFT.join([box.title, *(words.row(row.door, row.notes) for row in box.rows), ""])
        lines.append(f"  {_quoted(box.key)} [label={_quoted(label)}{look}];\n")
    for arrow in graph.arrows:
        label = words.door(arrow.row.door)
        look = _STUCK if arrow.stuck else ""
        lines.append(f"  {_quoted(arrow.row.box)} -> {_quoted(arrow.to)} [label={_quoted(label)}{look}];\n")
    return "".join([*lines, "}\n"])


def _quoted(text: str) -> str:
    """A string of the language: of what it has in it, backslashes and quotes mean something (doc/info/lang.html)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace(_LEFT, "\\l")
    return f'"{escaped}"'
