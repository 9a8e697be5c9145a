"""Bodies that neither the engine that carries them nor anybody beside it can read, forge, or pass for another.

A body is a head in clear and what is sealed, by ChaCha20-Poly1305 (RFC 8439)::

    version 1 byte    of this layout
    kind    1         what the body is, in the bridge's words
    last    1         whether it is the last part of what it belongs to
    0       1
    part    4         which part it is, from 0
    call   16         the call that it belongs to
    lease  16         of the exporter: another one after each of its starts
    expires 8         nanoseconds of the exporter's CLOCK_BOOTTIME, after which it says nothing; 0: it is not asked
    start  20         random: of which key it is
    nonce  12         random
    sealed            as long as the plain text, and a tag of 16 bytes

All numbers are little-endian.  The seal covers the head, the subject and the direction besides: what was sent to one
subject is refused at any other, what goes to the exporter is refused by importers, and a changed head, or a body that
was cut, by all.  What is genuine and comes again is another's business: :mod:`capmarshal._bridge_link.replays`.

**A nonce is never used twice with a key.**  Keys are derived from the token's by 160 random bits, the start, and each
seals 65,536 bodies at most, by nonces of 96 random bits: two of them are alike once in 2**65 such keys.  So there is no
counter that a restart, a fork, a machine restored from a snapshot or a second importer with the same token could take
back.  Who opens bodies keeps the last key: to derive one and begin with it costs as much as to seal a body.

Not covered: how long bodies are, when they are sent, and what the head says.  Who has recorded bodies, and gets their
token later, reads them; so what goes by a link has a token of that alone (:mod:`capmarshal._bridge_link.agreeing`).
"""

from __future__ import annotations

import enum
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
except ImportError as _error:
    raise ImportError("capmarshal.bridge needs cryptography: pip install 'cryptography>=42.0'") from _error

from capmarshal._kernel.errors import Error

if TYPE_CHECKING:
    from .tokens import Token

VERSION = 1
CALL_BYTES = 16
LEASE_BYTES = 16
# Of a question by which one asks for a lease.
NO_LEASE = bytes(LEASE_BYTES)

_HEAD = struct.Struct("<BBBxI16s16sQ")
# Where the lease stands.
_LEASE = slice(24, 24 + LEASE_BYTES)
_START_BYTES = 20
_NONCE_BYTES = 12
_TAG_BYTES = 16
_NONCE_AT = _HEAD.size + _START_BYTES
_SEALED_AT = _NONCE_AT + _NONCE_BYTES

# How much longer a body is than its plain text.
OVERHEAD = _SEALED_AT + _TAG_BYTES

# Bodies that one key seals.
BODIES_MOST = 65_536


class NotGenuine(Error):
    """A body is not what whoever has the token sealed for this place and time; the message says how it is known."""


class Direction(enum.Enum):
    """Which way a body goes: the two have keys of their own."""

    TO_EXPORTER = b"capmarshal bridge 1 to the exporter"
    TO_IMPORTER = b"capmarshal bridge 1 to the importer"


class Label(NamedTuple):
    """A body's head: anybody may read it, and nobody change it."""

    kind: int
    call: bytes
    lease: bytes
    part: int = 0
    last: bool = True
    expires: int = 0


def of_lease(body: bytes) -> bytes:
    """Of which lease a body says that it is, before anybody knows whether it is genuine."""
    return body[_LEASE]


class Seal:
    """Seals and opens the bodies of one token that go one way."""

    def __init__(self, token: Token, direction: Direction, subject: str | None = None) -> None:
        """For the token's subject, unless another one is given."""
        self._token = token
        self._direction = direction
        name = (token.subject if subject is None else subject).encode()
        # The subject's length before it: no other subject and head have the same bytes.
        self._covered = direction.value + b"\0" + struct.pack("<I", len(name)) + name
        # What the next bodies are sealed with, and how many; and what the last one was opened with.
        self._start, self._left = b"", 0
        self._cipher: ChaCha20Poly1305 | None = None
        self._their_start = b""
        self._their_cipher: ChaCha20Poly1305 | None = None

    def seal(self, label: Label, plain: bytes) -> bytes:
        """A body, which is :data:`OVERHEAD` bytes longer than ``plain``.

        Raises:
            ValueError: the label has an ID of another length.
            struct.error: it has a number that finds no room.
        """
        if len(label.call) != CALL_BYTES or len(label.lease) != LEASE_BYTES:
            raise ValueError(f"a call's ID has {CALL_BYTES} bytes, and a lease's {LEASE_BYTES}")
        head = _HEAD.pack(VERSION, label.kind, label.last, label.part, label.call, label.lease, label.expires)
        if self._cipher is None or not self._left:
            self._start = os.urandom(_START_BYTES)
            self._cipher, self._left = self._cipher_of(self._start), BODIES_MOST
        self._left -= 1
        nonce = os.urandom(_NONCE_BYTES)
        head += self._start + nonce
        return head + self._cipher.encrypt(nonce, plain, self._covered + head)

    def open(self, body: bytes) -> tuple[Label, bytes]:
        """What was sealed: its label, and its plain text.

        Raises:
            NotGenuine: it was sealed with another key, for another subject, in the other direction, or not at all; or
                it was changed or cut on the way.
        """
        if len(body) < OVERHEAD:
            raise NotGenuine(f"a body has {OVERHEAD} bytes at least, and this has {len(body)}")
        version, kind, last, part, call, lease, expires = _HEAD.unpack_from(body)
        if version != VERSION:
            raise NotGenuine(f"a body of layout {version}: this bridge knows layout {VERSION}")
        head = bytes(body[:_SEALED_AT])
        start, cipher = head[_HEAD.size : _NONCE_AT], self._their_cipher
        if cipher is None or start != self._their_start:
            cipher = self._cipher_of(start)
        try:
            plain = cipher.decrypt(head[_NONCE_AT:], memoryview(body)[_SEALED_AT:], self._covered + head)
        except InvalidTag:
            raise NotGenuine("a body was sealed with another key or for another place, or changed on its way") from None
        # Not before: whoever has no key makes nobody forget one.
        self._their_start, self._their_cipher = start, cipher
        return Label(kind, call, lease, part, bool(last), expires), plain

    def _cipher_of(self, start: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(self._token.derive(self._direction.value, start))

    def __repr__(self) -> str:
        return f"<Seal of {self._token!r}, {self._direction.name.lower().replace('_', ' ')}>"
