"""Users of NATS that prove who they are with a key: what its tool nsc makes, made by hand."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# What the text of a key begins with (nkeys, strkey.go).
OPERATOR, ACCOUNT, USER, SEED = 14, 0, 20, 18


def _text(raw):
    whole = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(whole).decode().rstrip("=")


class Key:
    """Of an operator, an account or a user."""

    def __init__(self, kind):
        self._kind = kind
        self._key = Ed25519PrivateKey.generate()
        public = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = _text(bytes([kind << 3]) + public)

    def seed(self):
        """The secret half, as text."""
        raw = self._key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        return _text((SEED << 11 | self._kind << 6).to_bytes(2, "big") + raw)

    def vouch(self, subject, claims, expires=None):
        """A token (JWT) in which this key says something of another one; until that second of the epoch."""
        said = {"iat": int(time.time()), "iss": self.public, "sub": subject.public, "nats": {"version": 2, **claims}}
        if expires is not None:
            said["exp"] = int(expires)
        said["jti"] = base64.b32encode(hashlib.sha256(json.dumps(said).encode()).digest()).decode().rstrip("=")
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, said]
        text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_base64(self._key.sign(text.encode()))}"


def _base64(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def configuration(operator, account):
    """That of a node, where who has the operator's key says which accounts there are."""
    limits = dict.fromkeys(["subs", "data", "payload", "imports", "exports", "conn", "leaf"], -1) | {"wildcards": True}
    return f"""
        operator: {operator.vouch(operator, {"type": "operator"})}
        resolver: MEMORY
        resolver_preload: {{ {account.public}: {operator.vouch(account, {"type": "account", "limits": limits})} }}
    """


def credentials(account, user, expires=None, subscribe=None, publish=None):
    """The text of a credentials file: by the account's key, that this is a user, until when, and what it may."""
    unlimited = dict.fromkeys(["subs", "data", "payload"], -1)
    allowed = {"sub": {"allow": subscribe} if subscribe else {}, "pub": {"allow": publish} if publish else {}}
    token = account.vouch(user, {"type": "user", **allowed, **unlimited}, expires)
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\nNKEY Seed printed below.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed()}\n------END USER NKEY SEED------\n"
    )


def make_user(expires=None):
    """(configuration of a node, text of the user's credentials file)."""
    operator, account, user = Key(OPERATOR), Key(ACCOUNT), Key(USER)
    return configuration(operator, account), credentials(account, user, expires)
