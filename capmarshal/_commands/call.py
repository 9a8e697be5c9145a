"""``capmarshal call``: one call from a shell."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from capmarshal._commands.values import seconds

if TYPE_CHECKING:
    from typing import Any

_ARGUMENTS = """
Arguments are given in their order or as NAME=VALUE. Each is JSON, but for text, which stands for itself without
quotes. Where a file is due it is @FILE, which is opened here: @- is standard input, or output; @/dev/fd/N what is open
already; @>FILE is made, or emptied, and written to. The bytes of a bytes or a Dataspace are @FILE, too; a capability is
@PATH, of another service; the items of a stream are the lines of @FILE.

The result is printed as JSON on one line, each item of a stream on a line of its own.

Exit status: 0; 1 if the method raised an error, what it gave cannot be written, or the call is longer than the service
takes; 2 if there is no such method, it takes other arguments, or a file cannot be opened; 3 if there was no answer: the
service, or another that an argument names, cannot be reached, lets nobody in, or is gone; 130 after Ctrl-C.
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of the command line."""
    parser = commands.add_parser(
        "call",
        help="call a method of a service at a path",
        description="Connects to a service, asks it what can be called, and makes one call.",
        epilog=_ARGUMENTS,
        usage="capmarshal call [-h] [--timeout SECONDS] [--output FILE] PATH METHOD [ARGUMENT ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", help="of the service's socket")
    # Together: what takes one word alone takes a `--` behind it, too, which is an argument.
    parser.add_argument(
        "words", metavar="METHOD", nargs=argparse.PARSER, help="and its arguments, which are all that follows it"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        help="for each answer; 10 unless given, and no limit for the items of a stream",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the result there, bytes, text, and what can be read from a descriptor as they are; - is standard "
        "output",
    )
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    # Imported when used: other commands do not call.
    from capmarshal._describe import running

    method, *arguments = parsed.words
    return running.call(parsed.path, method, arguments, parsed.timeout, parsed.output)
