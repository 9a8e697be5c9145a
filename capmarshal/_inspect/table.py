"""A look as a table: of lines for programs and for what has no colours, or as rich draws it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from capmarshal._inspect import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from capmarshal._inspect.view import Door, View

COLUMNS = ("ENTRYPOINT", "SERVER", "HELD BY", "CHANNELS", "WAITING")
_NONE_SEEN = "no entrypoint that this user may see"
# Lines of one cell, where a person is to read it.
_LINES = 12

# Styles of rich's, and what stands for them where there are no colours.
_PLAIN, _STUCK = "", "bold red"
_MARK = " STUCK"


@dataclass(frozen=True, slots=True)
class Line:
    """One of a cell.

    Attributes:
        text: printable.
        stuck: is shown in red.
    """

    text: str
    stuck: bool = False


# A list of lines for each column.
Row = list[list[Line]]


def rows(view: View) -> Iterator[Row]:
    """One for each entrypoint, and below it one for each of its grants."""
    stuck = view.stuck_processes()
    for each in view.entrypoints:
        for number, (door, made) in enumerate(zip(each.doors, each.channels_by_door(), strict=True)):
            first = number == 0
            name = words.door(door) if first else f"  {words.door(door)}"
            yield [
                [Line(name), *(Line(f"  {path}") for path in words.paths(each) if first)],
                [_server(view, door, stuck)] if first else [],
                [Line(text, pid in stuck) for pid, text in words.held_by(view, door)],
                [Line(text) for text in words.channels(view, made)],
                [Line(*found) for found in words.waiting(each, door, made)],
            ]


def _server(view: View, door: Door, stuck: frozenset[int]) -> Line:
    which = [holder.pid for holder in door.servers]
    marks = "".join(dict.fromkeys(words.stopped(view, pid) for pid in which))
    return Line(words.servers(view, door) + marks, any(pid in stuck for pid in which))


def notes(view: View) -> Iterator[str]:
    """What stands below: what travels, and what was not seen."""
    if not view.entrypoints:
        yield _NONE_SEEN
    yield from words.in_flight(view)
    for what in view.unseen:
        yield f"not seen: {what}"


def plain(view: View) -> str:
    """For what reads lines: a cell of several has as many lines, and what is stuck says so."""
    lines: list[tuple[str, ...]] = [COLUMNS]
    for row in rows(view):
        marked = ([line.text + _MARK * line.stuck for line in cell] for cell in row)
        lines += zip_longest(*marked, fillvalue="")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [_padded(cells, widths) for cells in lines] if view.entrypoints else []
    return "".join(f"{line}\n" for line in (*table, *notes(view)))


def _padded(cells: Iterable[str], widths: list[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def drawn(view: View) -> Any:
    """For a terminal: what rich's Console prints.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in COLUMNS:
        table.add_column(title, overflow="fold")
    for row in rows(view):
        # As texts: in strings, rich reads markup, which labels may have.
        table.add_row(*(Text("\n").join(_texts(cell)) for cell in row))
    below = [Text(note, style="dim") for note in notes(view)]
    return Group(*([table] if view.entrypoints else []), *below)


def _texts(cell: list[Line]) -> Iterator[Any]:
    from rich.text import Text

    for line in cell[:_LINES]:
        yield Text(line.text, style=_STUCK if line.stuck else _PLAIN)
    if len(cell) > _LINES:
        yield Text(f"and {len(cell) - _LINES:,} more", style="dim")
