"""The epitaph: what a door that was revoked says to all who hold it, for ever; and what people are told of it."""

from __future__ import annotations

from capmarshal._kernel.errors import printable, shortened
from capmarshal._protocol.wire import EPITAPH_HEAD, HEAD_SIZE

# Bytes of the reason.
REASON_MAX = 1000
SIZE_MAX = HEAD_SIZE + REASON_MAX


def pack(reason: str) -> bytes:
    """A REVOKED record."""
    return EPITAPH_HEAD + reason.encode("utf-8", "replace")[:REASON_MAX]


def unpack(data: bytes) -> str | None:
    """The reason in a REVOKED record; None where it is none."""
    if data[:HEAD_SIZE] != EPITAPH_HEAD:
        return None
    return data[HEAD_SIZE:SIZE_MAX].decode("utf-8", "replace")


def revoked(reason: str) -> str:
    """What is said of a grant that was revoked, for people; the reason is a stranger's own words."""
    return f"revoked by the server: {printable(shortened(reason))}" if reason else "revoked by the server"
