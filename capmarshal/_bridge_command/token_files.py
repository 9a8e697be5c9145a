"""Tokens in files, which only those who may call are to read.

A token is never a word of a command line, which all users of a machine can read, nor anything that this prints but
where it was made.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from capmarshal._bridge_command import secrecy
from capmarshal._bridge_link.tokens import Token
from capmarshal._descriptors.moving import opened

if TYPE_CHECKING:
    from typing import IO

# Bytes that are read of what is to be one; one has 120 or so.
_MOST = 10_000


class NoToken(Exception):
    """What was named has none; the message says why, and shows nothing of it."""


def named_by(word: str) -> Token:
    """The token that a word of a command line leads to: ``@FILE``, or ``-`` for standard input.

    Raises:
        NoToken: it leads to none.
    """
    if word.startswith("@"):
        return read(Path(word[1:]))
    if word != "-":
        raise NoToken(
            "a token is not to be on a command line, which all users of this machine can read: write @FILE, or - for "
            "standard input; one that was there should be replaced"
        )
    if sys.stdin is None:
        raise NoToken("standard input is closed, and is to have the token")
    try:
        return _in(sys.stdin.buffer, "standard input")
    except OSError as error:
        raise NoToken(f"standard input: {error.strerror}") from None


def read(path: Path) -> Token:
    """The token in a file.

    Raises:
        NoToken: there is none.
    """
    try:
        with path.open("rb") as file:
            secrecy.check(os.fstat(file.fileno()).st_mode, "a token", path)
            return _in(file, str(path))
    except OSError as error:
        raise NoToken(f"{path}: {error.strerror}") from None
    except secrecy.NotSecret as error:
        raise NoToken(str(error)) from None


def kept(path: Path, exporter: str) -> Token:
    """The token in a file, which is made with a new one unless it is there.

    Raises:
        NoToken: what is there is none, or another exporter's; or it can't be made.
    """
    with contextlib.suppress(FileExistsError):
        _make(path, Token.new(exporter))
    token = read(path)
    if token.exporter != exporter:
        raise NoToken(f"{path} has a token of {token.exporter!r}, and this bridge is {exporter!r}: name another file")
    return token


def _make(path: Path, token: Token) -> None:
    """Makes a file, which is whole as soon as it is there.

    Raises:
        FileExistsError: it is there.
        NoToken: it can't be made.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        if path.exists():
            raise FileExistsError
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with contextlib.ExitStack() as stack, opened(beside, flags, 0o600) as number:
            stack.callback(beside.unlink)
            left = memoryview(f"{token.reveal()}\n".encode())
            while left:
                left = left[os.write(number, left) :]
            os.fsync(number)
            os.link(beside, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise NoToken(f"{path} can't be made: {error.strerror}") from None


def _in(file: IO[bytes], where: str) -> Token:
    """The only token in a file: the first word of its only line, as ``export`` prints one before its path."""
    lines = file.read(_MOST).decode("utf-8", "replace").split("\n")
    words = [line.split()[0] for line in lines if line.strip()]
    if len(words) != 1:
        raise NoToken(f"{where} is to have one token, and has {len(words)}")
    try:
        return Token.parse(words[0])
    except ValueError as error:
        raise NoToken(f"{where}: {error}") from None
