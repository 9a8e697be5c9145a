"""``capmarshal bridge``: what services here offer, on other machines; and theirs, here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from capmarshal._commands import printing
from capmarshal.demo.complaints import complain

if TYPE_CHECKING:
    from typing import Any

_TOKENS = """
A token stands for a service: whoever has it can call that. So it is never on a command line, which all users of a
machine can read, but in a file, @FILE, or on standard input, -. Hand it over by what you trust, as ssh.

    one:~$ umask 077
    one:~$ capmarshal bridge --engine nats://one.example:4222 export /run/desk.sock > desk.token
    two:~$ ssh one cat desk.token | capmarshal bridge --engine nats://one.example:4222 import - --at /run/desk.sock

One bridge does all that a machine needs, and keeps its tokens, by a file: capmarshal bridge run --help.

Exit status: 0 after SIGTERM; 1 if something cannot be exported or imported, or another bridge has that name; 2 if that
cannot be meant; 3 if no node of the engine can be used; 130 after Ctrl-C.
"""

_FILE = """
The file is TOML; paths in it are seen from its folder.

    engine = ["nats://one.example:4222", "nats://two.example:4222"]
    name = "one"                          # the machine's own name, unless it is said
    credentials = "one.creds"
    ca = "ca.pem"

    [exports]                             # PATH = FILE: made with a new token, unless it is there
    "/run/desk.sock" = "desk.token"
    "/run/store.sock" = ["store-for-two.token", "store-for-three.token"]

    [imports]                             # PATH = FILE
    "/run/bridge/lamp.sock" = "lamp.token"
    "/run/bridge/door.sock" = { token = "door.token", mode = 0o660 }

What the command line says holds where the file says something else. SIGHUP has the file read again: what is not
exported there any more is revoked, and what is new is exported and imported.
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of the command line."""
    parser = commands.add_parser(
        "bridge",
        help="have services called from other machines, and theirs here",
        description="Runs a bridge, until SIGTERM: it exports services of this machine by tokens, and makes what "
        "tokens of other bridges stand for callable here. Nodes of NATS carry what bridges say to each other, which "
        "only they can read.",
        epilog=_TOKENS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser, "engine")
    # Where people write them, too; what stands before the deed and after it are nodes of one engine.
    after = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    _add_options(after, "engine_after")
    deeds = parser.add_subparsers(dest="deed", required=True, metavar="export | import | run")
    export = deeds.add_parser(
        "export",
        parents=[after],
        help="have services at paths called from other machines",
        description="Prints a token for each service, and its path behind it, on a line each. Each start makes new "
        "tokens; run keeps them.",
    )
    export.add_argument("path", metavar="PATH", nargs="+", help="of a service's socket")
    take = deeds.add_parser(
        "import",
        parents=[after],
        help="have what a token stands for called here, at a path",
        description="Makes a socket that programs here connect to.",
    )
    take.add_argument("token", metavar="TOKEN", help="@FILE, or - for standard input")
    take.add_argument("--at", metavar="PATH", required=True, help="of the socket to be made")
    take.add_argument(
        "--mode",
        metavar="MODE",
        type=_mode,
        default=0o600,
        help="of the socket, in octal: who may write to it may call; 0600",
    )
    run = deeds.add_parser(
        "run",
        parents=[after],
        help="all that a file says",
        description="Exports and imports what a file says, and keeps tokens in files.",
        epilog=_FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("file", metavar="FILE", help="what to do")
    parser.set_defaults(run=_run)


def _add_options(parser: argparse.ArgumentParser, engine: str) -> None:
    parser.add_argument(
        "--engine",
        dest=engine,
        metavar="URL",
        action="append",
        help="of a node: nats://HOST:PORT or tls://HOST:PORT; several times",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="of this bridge, which no other has: this machine's unless it is given"
    )
    parser.add_argument("--credentials", metavar="FILE", help="who this is to the nodes: .creds, or a user's seed")
    parser.add_argument("--ca", metavar="FILE", help="encrypt, and trust nodes with certificates of these authorities")
    parser.add_argument("--certificate", metavar="FILE", help="encrypt, and show this to nodes that ask for one")
    parser.add_argument("--key", metavar="FILE", help="of the certificate, where it is in another file")


def _mode(word: str) -> int:
    try:
        mode = int(word, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise argparse.ArgumentTypeError(f"{word!r} is no mode of a file, as 0660")
    return mode


def _run(parsed: argparse.Namespace) -> int:
    # Imported when used: it needs what other commands do not.
    try:
        from capmarshal._bridge_command import running
    except ImportError as error:
        needed = "'nats-py>=2.9' 'cryptography>=42.0' 'anyio>=4.7'"
        complain(f"a bridge needs nats-py, cryptography and anyio: pip install {needed} ({error})")
        return 1
    parsed.engine = [*(parsed.engine or ()), *vars(parsed).get("engine_after", ())]
    return running.run(parsed, printing.printed)
