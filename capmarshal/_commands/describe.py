"""``capmarshal describe``: what a service at a path offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._commands.values import seconds

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of the command line."""
    parser = commands.add_parser(
        "describe",
        help="show what a service at a path offers",
        description="Connects to a service and shows the methods of what it hands over, as the service tells them: "
        "those that may be called, with their parameters, results, errors and docstrings.",
        epilog="Exit status: 0; 1 if the service says nothing of its methods, or they cannot be written; 3 if it "
        "cannot be reached, or lets nobody in.",
    )
    parser.add_argument("path", metavar="PATH", help="of the service's socket")
    parser.add_argument("--json", action="store_true", help="the description as it is, with types as JSON Schema")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=10.0, help="for an answer; 10 unless given"
    )
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    # Imported when used: other commands do not call.
    from capmarshal._describe import running

    return running.describe(parsed.path, parsed.timeout, as_json=parsed.json)
