"""The files by which a user of NATS proves who it is, as its tools write them.

A credentials file (``.creds``) has a token that names the user, and its key; a seed file has the key alone, and nodes
are configured with its public half.  The server sends a nonce, which is signed with the key (Ed25519).  nats-py does
that with a package of its own, nkeys, which brings a second library of cryptography; it is these few lines.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_BLOCK = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END \1-+")

# A line with a user's seed, among lines with its public half and comments: what `nk -gen user -pubout` prints.
_SEED_FILE = re.compile(r"(?:\s*|#.*|U[A-Z2-7]{55})(?:\n(?:\s*|#.*|U[A-Z2-7]{55}))*")
_SEED_LINE = re.compile(r"^(SU[A-Z0-9]+)[ \t\r]*$", re.MULTILINE)

# What the text of a user's key begins with (nkeys, strkey.go): "U", 5 bits; of its seed, before 32 bytes of seed and 2
# of a checksum: "SU", 5 bits each.
_USER = bytes([20 << 3])
_USER_SEED = (18 << 11 | 20 << 6).to_bytes(2, "big")


class Credentials:
    """What a file of credentials had in it when it was read.

    Attributes:
        token: that names the user; None where the file has a seed alone.
        expires: when the token does, in seconds of the epoch; None where it does not, or it has none.
        public: the public half of the key, by which nodes know a user that has no token.
    """

    __slots__ = ("_key", "expires", "public", "token")

    def __init__(self, path: str | Path) -> None:
        """Reads it.

        Raises:
            OSError: it can't be read.
            ValueError: it is no such file; the message shows nothing of it.
        """
        text = Path(path).read_text(encoding="ascii", errors="replace")
        self.token: bytes | None = None
        seeds = _SEED_LINE.findall(text)
        if len(seeds) == 1 and _SEED_FILE.fullmatch(_SEED_LINE.sub("", text)):
            [written] = seeds
        else:
            blocks = dict(_BLOCK.findall(text))
            try:
                self.token = blocks["NATS USER JWT"].encode()
                written = blocks["USER NKEY SEED"]
            except KeyError as missing:
                raise ValueError(
                    f"{path} has no {missing.args[0]}: it is no credentials file of NATS, nor one with a user's seed"
                ) from None
        seed = _decoded(written)
        if seed is None:
            raise ValueError(f"the USER NKEY SEED in {path} is none of a user's")
        self.expires = None if self.token is None else _expiry(self.token)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: str = _encoded(_USER + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, nonce: str) -> bytes:
        """What proves to a server that this is that user."""
        return base64.b64encode(self._key.sign(nonce.encode()))

    def __repr__(self) -> str:
        return "<Credentials>"


def _expiry(token: bytes) -> float | None:
    """What the token says of itself: whether that is true, the nodes look at."""
    try:
        claims = token.split(b".")[1]
        expires = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))["exp"]
        return float(expires) or None
    except (LookupError, TypeError, ValueError, RecursionError):
        return None


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def _decoded(text: str) -> bytes | None:
    """The 32 bytes of a user's seed, if it is one."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        return None
    if len(raw) != 36 or raw[:2] != _USER_SEED or binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        return None
    return raw[2:-2]
