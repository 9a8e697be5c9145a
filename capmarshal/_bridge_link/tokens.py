"""Tokens: what stands for a capability of another machine, to be handed over by any way that people trust.

``cm1:<exporter>:<name>:<key>``: who exports it, 128 random bits that name what it exports, and 256 random bits that its
calls are sealed with, both in hexadecimal.  The engine that carries calls is shown neither: calls go to a subject that
is made of the name by a hash, and bodies are sealed with what is derived from the key.

A token is a key: whoever has it can call.  So it is in no repr, error, log or pickle; :meth:`Token.reveal` alone gives
it.  It belongs in a file that only its user reads, and never on a command line, which all users of a machine can read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import NoReturn, final

VERSION = "cm1"
NAME_BYTES = 16
KEY_BYTES = 32

# What stands between two dots of a subject, and may be that of a host: RFC 1123 2.1, in lower case and shorter.
_EXPORTER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_HEX = re.compile(r"[0-9a-f]*")


@final
class Token:
    """What an exporter makes callable by whoever has this: two are equal that are the same."""

    __slots__ = ("_key", "_name", "exporter", "subject")

    exporter: str
    subject: str

    def __init__(self, exporter: str, name: bytes, key: bytes) -> None:
        """Made of its parts.

        Raises:
            ValueError: these can't be parts of a token.
        """
        self.exporter = check_exporter(exporter)
        if len(name) != NAME_BYTES or len(key) != KEY_BYTES:
            raise ValueError(f"a token's name has {NAME_BYTES} bytes, and its key {KEY_BYTES}")
        self._name = bytes(name)
        self._key = bytes(key)
        digest = hashlib.sha256(b"capmarshal bridge 1 subject\0" + self._name).hexdigest()
        self.subject = f"cm.{exporter}.{digest[: 2 * NAME_BYTES]}"

    @classmethod
    def new(cls, exporter: str) -> Token:
        """A token that nobody has yet.

        Raises:
            ValueError: that can't be an exporter's name.
        """
        return cls(exporter, secrets.token_bytes(NAME_BYTES), secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Token:
        """What :meth:`reveal` gave; white space around it, as of a file's last line, is none of it.

        Raises:
            ValueError: it is no token; the message says what is wrong with it, and shows nothing of it.
        """
        parts = text.strip().split(":")
        if parts[0] != VERSION:
            raise ValueError(f"no token: one begins with {VERSION}:")
        if len(parts) != 4:
            raise ValueError(f"no token: one has 4 parts with colons between them, and this has {len(parts)}")
        _, exporter, name, key = parts
        return cls(check_exporter(exporter), _unhex("name", name, NAME_BYTES), _unhex("key", key, KEY_BYTES))

    def reveal(self) -> str:
        """The token as text: whoever reads it can call."""
        return f"{VERSION}:{self.exporter}:{self._name.hex()}:{self._key.hex()}"

    def proof(self, link: Token) -> bytes:
        """What proves to who has this token that one has it as well, by one link, and is of no use by another."""
        return self.derive(b"capmarshal bridge 1 open", link.subject.encode())

    def derive(self, purpose: bytes, salt: bytes) -> bytes:
        """256 bits for one purpose and salt: HKDF-Expand with SHA-256 (RFC 5869, 2.3), of the key.

        The key is random throughout, and needs no extraction before it (3.3).
        """
        return hmac.digest(self._key, purpose + b"\0" + salt + b"\x01", "sha256")

    def __eq__(self, other: object) -> bool:
        """Compared without telling by the time that it takes how much of it is the same."""
        if not isinstance(other, Token):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    def __hash__(self) -> int:
        return hash(self.subject)

    def __repr__(self) -> str:
        return f"<Token of exporter {self.exporter!r}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Token is not pickled: whoever reads that could call")


def check_exporter(exporter: str) -> str:
    """A bridge's name, as it came.

    Raises:
        ValueError: it can't be one; the message shows nothing of it.
    """
    if not _EXPORTER.fullmatch(exporter):
        raise ValueError(
            "an exporter's name has 1 to 32 lower-case letters, digits and hyphens, and neither begins nor ends with "
            "a hyphen"
        )
    return exporter


def _unhex(what: str, digits: str, size: int) -> bytes:
    if len(digits) != 2 * size:
        raise ValueError(f"no token: its {what} has {2 * size} digits, and this {len(digits)}: was it cut?")
    if not _HEX.fullmatch(digits):
        raise ValueError(f"no token: its {what} has other characters than 0 to 9 and a to f")
    return bytes.fromhex(digits)
