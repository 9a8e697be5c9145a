"""The command ``capmarshal``."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

import capmarshal

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="capmarshal", description="Capabilities between processes.")
    parser.add_argument("--version", action="version", version=f"capmarshal {capmarshal.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="print SHA-256 checksums, by three processes that hold nothing but capabilities",
        description="Prints what sha256sum prints: a broker spawns a server and a client, and hands the capability of "
        "the one on to the other; the client opens the files, and the server, which never sees a path, reads them.",
    )
    demo.add_argument("file", metavar="FILE", nargs="+", help="a file to read; - is standard input")
    demo.add_argument(
        "-v", "--verbose", action="store_true", help="show who holds which entrypoint under how many descriptors"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: those of the command line, unless given.

    Returns:
        The exit status: 0, 1 for a failure that was reported, 130 after Ctrl-C.

    Raises:
        SystemExit: 2 after a usage error, 0 after ``--help`` and ``--version``.
    """
    try:
        parsed = _parser().parse_args(arguments)
        from capmarshal.demo import broker

        return broker.run(parsed.file, verbose=parsed.verbose)
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
