"""The key of a link, on which two bridges agree so that nobody has it who only listens, whatever else he has.

Each makes half of it, shows the public part, and keeps the private one to itself (X25519, RFC 7748).  What is shown is
sealed with the token, so nobody without that takes part.  Who has the same token, or gets it later, and has overheard
all, has neither private part: those are in the memory of the two alone, and for two minutes at most.  Not guarded
against: who has the same token, and puts himself between the two, where the engine's nodes let him.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from .clocks import nanoseconds
from .sealing import NotGenuine

if TYPE_CHECKING:
    from .tokens import Token

# Seconds for which an exporter shows a half to all who ask; and after which it has forgotten it: who was shown it last
# has had time to join.
_SHOWN_FOR = 60.0
_GOOD_FOR = 120.0

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
    """An exporter's: all who say hello within a minute are shown the same, and none is kept for longer than two."""

    def __init__(self) -> None:
        """None yet."""
        # The latest is the last; of each, what forgets it, whether anybody says hello again or not.
        self._kept: dict[Half, asyncio.TimerHandle] = {}
        self._made = 0

    def current(self, now: int) -> Half:
        """The one to be shown; of nanoseconds of any clock."""
        if not self._kept or now - self._made >= nanoseconds(_SHOWN_FOR):
            # The clock of an event loop stands still with its machine, and this one may not.
            for older in list(self._kept)[:-1]:
                self._forget(older)
            self._made, half = now, Half()
            self._kept[half] = asyncio.get_running_loop().call_later(_GOOD_FOR, self._forget, half)
        return next(reversed(self._kept))

    def shown(self, public: bytes) -> Half | None:
        """The one that has that public part, unless it is forgotten."""
        return next((half for half in self._kept if half.public == public), None)

    def forget_all(self) -> None:
        """Nobody joins any more."""
        for half in tuple(self._kept):
            self._forget(half)

    def _forget(self, half: Half) -> None:
        self._kept.pop(half).cancel()
