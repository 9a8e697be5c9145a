"""The key of a link, on which two bridges agree so that nobody has it who only listens, whatever else he has.

Each makes half of it, shows the public part, and keeps the private one to itself (X25519, RFC 7748).  What is shown is
sealed with the token, so nobody without that takes part.  Who has the same token, or gets it later, and has overheard
all, has neither private part: those are in the memory of the two alone, and not for long.  Not guarded against: who has
the same token, and puts himself between the two, where the engine's nodes let him.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from .clocks import nanoseconds
from .sealing import NotGenuine

if TYPE_CHECKING:
    from .tokens import Token

# Seconds after which an exporter makes another half, when it is asked; the one before is good for as long.
_GOOD_FOR = 60.0

_PURPOSE = b"capmarshal bridge 1 link"


class Half:
    """One side's.

    Attributes:
        public: the part that is shown.
    """

    def __init__(self) -> None:
        """A new one."""
        self._private = X25519PrivateKey.generate()
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def key(self, theirs: bytes, token: Token, name: bytes) -> bytes:
        """The key of a link: HKDF with SHA-256 (RFC 5869), of what both have in common.

        Args:
            theirs: the public part of the other half.
            token: by which they have found each other.
            name: of the link.

        Raises:
            NotGenuine: that is no public part.
        """
        try:
            common = self._private.exchange(X25519PublicKey.from_public_bytes(theirs))
        except ValueError:
            raise NotGenuine("a bridge of another version, or a fault in one: it has shown no half of a key") from None
        both = b"".join(sorted((self.public, theirs)))
        mixed = hmac.digest(token.derive(_PURPOSE, both), common, "sha256")
        return hmac.digest(mixed, _PURPOSE + b"\0" + name + b"\x01", "sha256")


class Halves:
    """An exporter's: all who say hello within some time are shown the same."""

    def __init__(self) -> None:
        """None yet."""
        self._kept: list[Half] = []
        self._made = 0

    def current(self, now: int) -> Half:
        """The one to be shown; of nanoseconds of any clock."""
        if not self._kept or now - self._made >= nanoseconds(_GOOD_FOR):
            self._made = now
            self._kept = [Half(), *self._kept[:1]]
        return self._kept[0]

    def shown(self, public: bytes) -> Half | None:
        """The one that has that public part, unless it is forgotten."""
        return next((half for half in self._kept if half.public == public), None)
