"""Payloads that end in a long ``bytes``: it is not copied, but sent from where it is.

MessagePack writes bytes as they are, after their length.  So a payload whose last value they are lies in two buffers:
what is written of it, and the bytes themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._descriptors.inbox import RECORD_MAX
from capmarshal._typed.codec import encode_data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What is shorter may travel in one record, and is copied together.
_LONG = RECORD_MAX
# Above that, MessagePack has no head for it, and its encoder says so.
_MOST = (1 << 32) - 1
# How its encoder ends what ends in no bytes, and what is written in place of that: bin 8, and bin 32.
_NONE, _BIN32 = b"\xc4\x00", b"\xc6"


class Long:
    """A payload in two buffers.

    Args:
        start: of it, all but the long value.
        end: that value.

    Attributes:
        start: as given.
        end: as given.
    """

    __slots__ = ("end", "start")

    def __init__(self, start: bytes, end: bytes) -> None:
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return len(self.start) + len(self.end)

    def joined(self) -> bytes:
        """The payload in one."""
        return self.start + self.end


Payload: TypeAlias = "bytes | Long"
Encoder: TypeAlias = "Callable[[Any], Payload]"


def parts_of(payload: Payload) -> tuple[bytes, bytes]:
    """Its start, and its end; all of it, and nothing, where it is not long."""
    return (payload, b"") if isinstance(payload, bytes) else (payload.start, payload.end)


def as_long(value: Any) -> Long | None:
    """The payload for a value if it is a long one."""
    if type(value) is bytes and _LONG <= len(value) <= _MOST:
        return Long(_BIN32 + len(value).to_bytes(4, "big"), value)
    return None


def encode_result(result: Any) -> Payload:
    """The payload for a result that is data alone, and may be long; raises what :func:`encode_data` does."""
    return as_long(result) or encode_data(result)


def encode_arguments(given: Any) -> Payload:
    """The payload for arguments that are data, of which the last may be long; raises what :func:`encode_data` does.

    Args:
        given: a tuple of them, or in a map what is given by name: see :mod:`capmarshal._typed.arguments`.
    """
    last = as_long(given[-1]) if type(given) is tuple and given else None
    if last is None:
        return encode_data(given)
    last.start = encode_data((*given[:-1], b"")).removesuffix(_NONE) + last.start
    return last


def encoders_for(arguments: Sequence[Any], result: Any) -> tuple[Encoder, Encoder]:
    """What encodes a method's arguments, and what its result, by their annotations; where all of them are data."""
    of_arguments = encode_arguments if bytes in arguments else encode_data
    return of_arguments, encode_result if result is bytes else encode_data
