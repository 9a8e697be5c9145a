"""What a bridge is told: by the words of a command line, or by a file."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from capmarshal._bridge_engine.nats_nodes import checked_address
from capmarshal._bridge_engine.tls import Tls
from capmarshal._bridge_link.tokens import check_exporter

if TYPE_CHECKING:
    import argparse

    from capmarshal._bridge_link.tokens import Token

# Of the socket that is made for what a token stands for.
MODE = 0o600


class BadSettings(Exception):
    """It can't be done so; the message says what is wrong."""


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


class _Import(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    mode: int = MODE


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The file, as it is written."""

    engine: str | list[str] = []
    name: str | None = None
    credentials: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    exports: dict[str, str | list[str]] = {}
    imports: dict[str, str | _Import] = {}


def of_words(
    parsed: argparse.Namespace, exports: tuple[Export, ...] = (), imports: tuple[Import, ...] = ()
) -> Settings:
    """Those of a command line.

    Raises:
        BadSettings: they can't be meant.
    """
    return _made(_File(), parsed, Path(), exports, imports)


def of_file(path: Path, parsed: argparse.Namespace) -> Settings:
    """Those of a file in TOML, but for what the command line says.

    Paths in it are seen from its folder.

    Raises:
        BadSettings: it can't be read, or can't be meant.
    """
    try:
        told = msgspec.toml.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None
    place = path.parent
    exports = tuple(
        Export(place / service, place / file)
        for service, files in told.exports.items()
        for file in ([files] if isinstance(files, str) else files)
    )
    kept = [export.token_file for export in exports]
    if len(set(kept)) != len(kept):
        raise BadSettings(f"{path}: one file is named for two exports, and each token stands for one")
    imports = tuple(
        Import(place / at, place / one) if isinstance(one, str) else Import(place / at, place / one.token, one.mode)
        for at, one in told.imports.items()
    )
    return _made(told, parsed, place, exports, imports)


def _made(
    told: _File,
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
    engine = parsed.engine or ([told.engine] if isinstance(told.engine, str) else told.engine)
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
