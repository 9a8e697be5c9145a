"""The file in which a bridge is told what to do, as it is written; what is wrong there is said by its key."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# Of the socket that is made for what a token stands for.
MODE = 0o600
_MODES = 0o777

# What may be told by one text; and all keys.
_TEXTS = ("name", "credentials", "ca", "certificate", "key")
_KEYS = ("engine", *_TEXTS, "exports", "imports")

_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table", str: "text"}


class BadSettings(Exception):
    """It can't be done so; the message says what is wrong."""


@dataclass
class Told:
    """What a file says.

    Attributes:
        engine: addresses of nodes.
        name: of the bridge.
        credentials, ca, certificate, key: files.
        exports: files for tokens, by paths of services.
        imports: a token's file, and the mode of the socket, by the path of that.
    """

    engine: list[str] = field(default_factory=list)
    name: str | None = None
    credentials: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    exports: dict[str, list[str]] = field(default_factory=dict)
    imports: dict[str, tuple[str, int]] = field(default_factory=dict)


def told_by(path: Path) -> Told:
    """What a file in TOML says.

    Raises:
        BadSettings: it can't be read; or says what a bridge does not know.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSettings(f"{path}: {error}") from None
    try:
        return _checked(told)
    except _Wrong as error:
        raise BadSettings(f"{path}: {error}") from None


class _Wrong(Exception):
    pass


def _checked(told: dict[str, Any]) -> Told:
    for key in told:
        if key not in _KEYS:
            raise _Wrong(f"`{key}` is nothing that a bridge knows; it knows {', '.join(_KEYS)}")
    made = Told(engine=_texts(told.get("engine", []), "`engine`", "an address"))
    for key in _TEXTS:
        if key in told:
            setattr(made, key, _text(told[key], f"`{key}`", "text"))
    for service, files in _table(told, "exports").items():
        _check_nul(service, "a path in [exports]")
        made.exports[service] = _texts(files, f'"{service}" in [exports]', "the file of its token")
    for at, one in _table(told, "imports").items():
        _check_nul(at, "a path in [imports]")
        made.imports[at] = _import(one, f'"{at}" in [imports]')
    return made


def _import(one: object, where: str) -> tuple[str, int]:
    if not isinstance(one, dict):
        return _text(one, where, "the file of a token, or { token = FILE, mode = 0o660 },"), MODE
    for key in one:
        if key not in ("token", "mode"):
            raise _Wrong(f"{where} has `{key}`, and may have token and mode")
    if "token" not in one:
        raise _Wrong(f"{where} has no `token`: the file of one is due")
    mode = one.get("mode", MODE)
    if type(mode) is not int or not 0 <= mode <= _MODES:
        raise _Wrong(f"`mode` of {where} is none of a file: 0o660 would be one")
    return _text(one["token"], f"`token` of {where}", "the file of one"), mode


def _table(told: dict[str, Any], key: str) -> dict[str, Any]:
    table = told.get(key, {})
    if not isinstance(table, dict):
        raise _Wrong(f"`{key}` is {_kind(table)}, and a table is due: [{key}], and a line each below it")
    return table


def _texts(value: object, where: str, due: str) -> list[str]:
    if isinstance(value, list):
        return [_text(each, f"one in the list of {where}", due) for each in value]
    return [_text(value, where, f"{due}, or a list of such,")]


def _text(value: object, where: str, due: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{where} is {_kind(value)}, and {due} is due")
    _check_nul(value, where)
    return value


def _check_nul(text: str, where: str) -> None:
    """No file can be asked for by such a name: Python raises a ValueError wherever it is used."""
    if "\0" in text:
        raise _Wrong(f"{where} has a NUL in it, which no name of a file or a node has")


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date")
