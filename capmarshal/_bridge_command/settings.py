"""What a bridge is told: by the words of a command line, or by a file."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capmarshal._bridge_command.told import MODE, BadSettings, Told, told_by
from capmarshal._bridge_engine.nats_nodes import checked_address
from capmarshal._bridge_engine.tls import Tls
from capmarshal._bridge_link.tokens import check_exporter

if TYPE_CHECKING:
    import argparse

    from capmarshal._bridge_link.tokens import Token


@dataclass(frozen=True)
class Export:
    """A service that others may call.

    Attributes:
        path: of its socket.
        token_file: that keeps its token; None: a new token is printed.
    """

    path: Path
    token_file: Path | None = None


@dataclass(frozen=True)
class Import:
    """What others may connect to here.

    Attributes:
        path: of the socket that is to be made.
        token: a file that has the token; or the token.
        mode: of the socket.
    """

    path: Path
    token: Path | Token
    mode: int = MODE


@dataclass(frozen=True)
class Settings:
    """All of a bridge's.

    Attributes:
        name: its own.
        engine: addresses of nodes.
        credentials: a file of the engine's.
        tls: for connections that are encrypted.
        exports: what others may call.
        imports: what of others may be called here.
    """

    name: str
    engine: tuple[str, ...]
    credentials: Path | None
    tls: Tls | None
    exports: tuple[Export, ...] = ()
    imports: tuple[Import, ...] = ()


def of_words(
    parsed: argparse.Namespace, exports: tuple[Export, ...] = (), imports: tuple[Import, ...] = ()
) -> Settings:
    """Those of a command line.

    Raises:
        BadSettings: they can't be meant.
    """
    return _made(Told(), parsed, Path(), exports, imports)


def of_file(path: Path, parsed: argparse.Namespace) -> Settings:
    """Those of a file in TOML, but for what the command line says.

    Paths in it are seen from its folder.

    Raises:
        BadSettings: it can't be read, or can't be meant.
    """
    told = told_by(path)
    place = path.parent
    exports = tuple(Export(place / service, place / file) for service, files in told.exports.items() for file in files)
    kept = [export.token_file for export in exports]
    if len(set(kept)) != len(kept):
        raise BadSettings(f"{path}: one file is named for two exports, and each token stands for one")
    imports = tuple(Import(place / at, place / token, mode) for at, (token, mode) in told.imports.items())
    return _made(told, parsed, place, exports, imports)


def _made(
    told: Told,
    parsed: argparse.Namespace,
    place: Path,
    exports: tuple[Export, ...],
    imports: tuple[Import, ...],
) -> Settings:
    name = parsed.name or told.name or _own_name()
    try:
        check_exporter(name)
    except ValueError as error:
        raise BadSettings(f"{error}, and {name!r} is none: say --name") from None
    engine = parsed.engine or told.engine
    if not engine:
        raise BadSettings("which nodes carry its calls? say --engine nats://HOST:PORT, or engine = [...] in a file")
    try:
        for address in engine:
            checked_address(address)
    except ValueError as error:
        raise BadSettings(str(error)) from None

    def path(option: str) -> Path | None:
        word, written = getattr(parsed, option), getattr(told, option)
        return Path(word) if word else place / written if written else None

    ca, certificate, key = map(path, ("ca", "certificate", "key"))
    try:
        tls = Tls(ca=ca, certificate=certificate, key=key) if ca or certificate or key else None
    except ValueError as error:
        raise BadSettings(str(error)) from None
    return Settings(name, tuple(engine), path("credentials"), tls, exports, imports)


def _own_name() -> str:
    return socket.gethostname().partition(".")[0].lower()
