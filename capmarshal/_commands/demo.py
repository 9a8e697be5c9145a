"""``capmarshal demo``: checksums, by three processes that hold nothing but capabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of the command line."""
    parser = commands.add_parser(
        "demo",
        help="print SHA-256 checksums, by three processes that hold nothing but capabilities",
        description="Prints what sha256sum prints: a broker spawns a server and a client, and hands the capability of "
        "the one on to the other; the client opens the files, and the server, which never sees a path, reads them.",
    )
    parser.add_argument("file", metavar="FILE", nargs="+", help="a file to read; - is standard input")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show who holds which entrypoint under how many descriptors"
    )
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    # Imported when used: it starts processes, and other commands do not.
    from capmarshal.demo import broker

    return broker.run(parsed.file, verbose=parsed.verbose)
