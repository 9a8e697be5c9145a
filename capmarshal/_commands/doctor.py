"""``capmarshal doctor``: what of this machine the package does with, what it does without, and what mends that."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from capmarshal._commands import printing

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of the command line."""
    parser = commands.add_parser(
        "doctor",
        help="try what the package needs of this machine, and say what mends what is missing",
        description="Tries each thing that calls, services and confinement need, here and as this user: each in a "
        "process of its own, so that nothing is changed.  Says what is found, what it costs where the package does "
        "with less, and what to type.  The exit status is 0 where it runs, with less too, and 1 where something needed "
        "is missing.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    # Imported when used: no other command needs any of it.
    from capmarshal._doctor import showing
    from capmarshal._doctor.examination import examined
    from capmarshal._doctor.finding import Level, worst

    findings = [*examined()]
    status = 1 if worst(findings) is Level.MISSING else 0
    if parsed.json:
        text = f"{showing.as_json(findings)}\n"
    elif (console := _terminal()) is not None:
        with console.capture() as screen:
            showing.as_table(findings, console)
        text = screen.get()
    else:
        text = "".join(f"{line}\n" for line in showing.as_lines(findings))
    return status if printing.printed(text.encode(sys.stdout.encoding, "backslashreplace")) else 1


def _terminal() -> Any:
    """A console of rich's, where standard output is a terminal and rich is installed."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()
