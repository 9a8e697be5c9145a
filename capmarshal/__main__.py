"""The command ``capmarshal``."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

import capmarshal
from capmarshal._commands import bridge, call, completion, demo, describe, doctor, inspect, printing

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the order of --help.  Each adds its own part, and says what runs it: a function of what was parsed, to exit status.
_COMMANDS = (demo, doctor, inspect, describe, call, bridge, completion)

_INTERRUPTED = 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="capmarshal", description="Capabilities between processes.")
    parser.add_argument("--version", action="version", version=f"capmarshal {capmarshal.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: those of the command line, unless given.

    Returns:
        The exit status: 0, 1 for a failure that was reported, 130 after Ctrl-C; some commands have more.

    Raises:
        SystemExit: 2 after a usage error, 0 after ``--help`` and ``--version``.
    """
    try:
        try:
            parsed = _parser().parse_args(arguments)
        except SystemExit as asked:
            if not asked.code and not printing.flushed():
                return 1
            raise
        # A picture alone has no need of it.
        if not (parsed.command == "inspect" and parsed.output) and not printing.is_open():
            return 1
        status: int = parsed.run(parsed)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
