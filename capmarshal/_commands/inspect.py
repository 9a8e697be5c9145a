"""``capmarshal inspect``: who serves, who holds what, and what waits, on this machine."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from capmarshal._commands import values

_EVERY = 1.0
_NO_RICH = "a table on a terminal needs rich: pip install 'rich>=13.7'; lines, inspect | cat, need nothing"


def _seconds(text: str) -> float:
    seconds = values.seconds(text)
    if seconds == math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} never ends")
    return seconds


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of the command line."""
    parser = commands.add_parser(
        "inspect",
        help="show who serves, who holds what, and what waits",
        description="Shows every entrypoint and grant that this user may see: who serves it, who holds a capability of "
        "it, the channels, and what waits in queues; and says what could not be seen. Nothing is asked of the "
        "processes, which need not answer: it is the kernel that tells.",
    )
    parser.add_argument("pid", metavar="PID", nargs="*", type=int, help="only what has to do with these processes")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const="json", help="for programs")
    form.add_argument("--dot", action="store_const", dest="form", const="dot", help="for Graphviz")
    form.add_argument("--svg", action="store_const", dest="form", const="svg", help="a picture")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write there, and not to standard output")
    parser.add_argument(
        "-w",
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_seconds,
        const=_EVERY,
        help="look again after so many seconds (1), until Ctrl-C",
    )
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    # Imported when used, as for every command.
    from capmarshal._inspect import data, dot, svg, table, watching
    from capmarshal._inspect.processes import sockets_of
    from capmarshal.demo.complaints import complain

    pids = frozenset(parsed.pid)
    for pid in sorted(pids):
        try:
            sockets_of(pid)
        except PermissionError:
            complain(f"process {pid} may not be looked into: it is another user's, or it does not let itself be")
            return 1
        except OSError:
            complain(f"there is no process {pid}")
            return 1
    forms = {"json": data.as_json, "dot": dot.as_dot, "svg": svg.as_svg, None: table.plain}
    form = forms[parsed.form]
    try:
        if parsed.form is None and parsed.output is None and sys.stdout.isatty():
            watching.shown(lambda: watching.looked_at(pids), parsed.watch)
        else:
            watching.written(lambda: form(watching.looked_at(pids)), parsed.output, parsed.watch)
    except ModuleNotFoundError:
        complain(_NO_RICH)
        return 1
    except BrokenPipeError:
        # Whoever read has had enough.
        return 0
    except OSError as error:
        complain(f"inspect: {error}")
        return 1
    return 0
