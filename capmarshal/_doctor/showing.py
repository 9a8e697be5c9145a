"""How it is shown: as JSON, as a table, or as lines that anybody reads."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, Final

import capmarshal as cm
from capmarshal._doctor.finding import LEVELS, Finding, Level, worst

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH: Final = 100
# The widest level, and a space.
_INDENT: Final = max(map(len, (each.value for each in LEVELS))) + 1

_STYLES: Final = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.LESS: "yellow",
    Level.UNTRIED: "yellow",
    Level.MISSING: "bold red",
}


def as_json(findings: list[Finding]) -> str:
    """All of it, for programs."""
    made = {
        "version": cm.__version__,
        "level": worst(findings).value,
        "findings": [{**each._asdict(), "level": each.level.value} for each in findings],
    }
    return json.dumps(made, indent=1)


def as_lines(findings: list[Finding]) -> Iterator[str]:
    """A line for each thing; and what it costs and what helps beneath it, where that is to be said."""
    group = None
    for each in findings:
        if each.group != group:
            if group is not None:
                yield ""
            yield each.group
            group = each.group
        yield f"{each.level.value:<{_INDENT}}{each.name}: {each.found}"
        for what, words in (("costs", each.costs), ("mend", each.mend)):
            if words:
                yield from textwrap.wrap(
                    f"{what}: {words}",
                    _WIDTH,
                    initial_indent=" " * (_INDENT + 2),
                    subsequent_indent=" " * (_INDENT + 4 + len(what)),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
    yield ""
    yield summary(findings)


def as_table(findings: list[Finding], console: Any) -> None:
    """The same by rich, for a terminal.

    Args:
        findings: what was found.
        console: a ``rich.console.Console``.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for ratio in (None, 1, 3):
        table.add_column(ratio=ratio, no_wrap=ratio is None, overflow="fold")
    group = None
    for each in findings:
        if each.group != group:
            table.add_row("", Text(each.group if group is None else f"\n{each.group}", style="bold"), "")
            group = each.group
        # Text, not markup: what is found has brackets of its own.
        told = Text(each.found)
        for what, words in (("costs", each.costs), ("mend", each.mend)):
            if words:
                told.append(f"\n{what}: ", style="bold").append(words)
        table.add_row(Text(each.level.value, style=_STYLES[each.level]), Text(each.name), told)
    console.print(table)
    console.print(Text(f"\n{summary(findings)}"))


def summary(findings: list[Finding]) -> str:
    """The last line: whether it runs."""
    named = {level: [each.name for each in findings if each.level is level] for level in LEVELS}
    if named[Level.MISSING]:
        return f"It does not run here: {', '.join(named[Level.MISSING])}."
    less = len(named[Level.LESS])
    told = f"It runs here; with less for {less} reason{'s' * (less != 1)}." if less else "It runs here."
    if named[Level.UNTRIED]:
        told += f" Not tried: {', '.join(named[Level.UNTRIED])}."
    return told
