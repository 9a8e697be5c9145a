"""The credentials file of a NATS user (``.creds``), as its tools write it: a token that names the user, and its key.

The server sends a nonce, which is signed with the key (Ed25519).  nats-py does that with a package of its own, nkeys,
which brings a second library of cryptography; it is these few lines.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_BLOCK = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END \1-+")

# What a user's seed begins with, before 32 bytes of seed and 2 of a checksum: "SU", 5 bits each (nkeys, strkey.go).
_USER_SEED = (18 << 11 | 20 << 6).to_bytes(2, "big")


class Credentials:
    """What a file of credentials had in it when it was read."""

    __slots__ = ("_key", "token")

    def __init__(self, path: str | Path) -> None:
        """Reads it.

        Raises:
            OSError: it can't be read.
            ValueError: it is no such file; the message shows nothing of it.
        """
        blocks = dict(_BLOCK.findall(Path(path).read_text(encoding="ascii", errors="replace")))
        try:
            self.token: bytes = blocks["NATS USER JWT"].encode()
            seed = _decoded(blocks["USER NKEY SEED"])
        except KeyError as missing:
            raise ValueError(f"{path} has no {missing.args[0]}: it is no credentials file of NATS") from None
        if seed is None:
            raise ValueError(f"the USER NKEY SEED in {path} is none of a user's")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def sign(self, nonce: str) -> bytes:
        """What proves to a server that this is that user."""
        return base64.b64encode(self._key.sign(nonce.encode()))

    def __repr__(self) -> str:
        return "<Credentials>"


def _decoded(text: str) -> bytes | None:
    """The 32 bytes of a user's seed, if it is one."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        return None
    if len(raw) != 36 or raw[:2] != _USER_SEED or binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        return None
    return raw[2:-2]
