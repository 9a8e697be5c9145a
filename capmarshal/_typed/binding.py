"""The arguments of a call, as they are received: bound by the server's own declaration.

What was given by name is bound by name, and what was not given is left to the server's own defaults.  So a parameter
with a default may be added on either side, keyword-only ones may stand in any order, and what a derived interface may
do for a type checker, it may do for a caller of its base.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._kernel.errors import ArgumentError, StaleCapability, shortened
from capmarshal._typed.arguments import BY_POSITION
from capmarshal._typed.codec import data_decoder_for, decoder_for, named, says_all, words_of_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._typed.declaration import Declaration
    from capmarshal._typed.implementation import Implementation
    from capmarshal._typed.incoming import Incoming

# Heads of MessagePack's arrays and maps: short ones with their length in the head, and those with 2 or 4 bytes of it.
_ARRAY, _ARRAYS = 0x90, {0xDC: 2, 0xDD: 4}
_MAP, _MAPS = 0x80, {0xDE: 2, 0xDF: 4}
_SHORT, _LENGTH = 0xF0, 0x0F
# Names that may come beside those that are known, and of which one is named that is not.
_UNKNOWN_MAX = 256

# How msgspec ends an error in the n-th argument.  What stands before that may be the peer's own words.
_PLACE = re.compile(r"( - at (?:`key` in )?`)\$\[(\d+)\]([^`]*`)\Z")


def _is_map(payload: bytes | memoryview) -> bool:
    head = payload[0] if payload else 0
    return head & _SHORT == _MAP or head in _MAPS


def _count(payload: bytes | memoryview) -> int:
    """How many arguments an array or a map has; 0 for what is neither, which its decoder says then."""
    head = payload[0] if payload else 0
    if head & _SHORT in (_ARRAY, _MAP):
        return head & _LENGTH
    size = _ARRAYS.get(head) or _MAPS.get(head) or 0
    return int.from_bytes(payload[1 : 1 + size], "big")


_decode_map: Callable[[Buffer], dict[str, msgspec.Raw]] = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode


class Binding:
    """What a method is called with, from payload.

    Args:
        declared: the method, as its interface declares it.
        implementation: what the class that is called has in its place.
    """

    def __init__(self, declared: Declaration, implementation: Implementation) -> None:
        self._where = declared.where
        self._parameters = declared.parameters
        self._annotations = declared.annotations
        self._places = {p.name: place for place, p in enumerate(self._parameters) if p.kind is not p.POSITIONAL_ONLY}
        self._positional = sum(p.kind is not p.KEYWORD_ONLY for p in self._parameters)
        self._required = implementation.required
        self._names = implementation.names
        # What is data and was given by position, by the heads of payloads; None: all of them have one decoder.
        self._by_head: dict[bytes, Callable[[Buffer], Any]] | None = None
        # By how many are given by position, and by name.
        self._decoders: dict[int, Callable[[Buffer, Incoming], Any]] = {}
        self._named: dict[str, Callable[[Buffer, Incoming], Any]] = {}

    def _tuple_of(self, count: int) -> Any:
        return tuple[tuple(self._annotations[:count])]  # type: ignore[misc]  # made at run time

    def data_decoder(self) -> Callable[[bytes | memoryview], Any]:
        """A function from payload to arguments, where all of them are data and were given by position.

        The function raises anything that msgspec raises, and KeyError where too many or too few were given, or some by
        name.
        """
        fewest = sum(place is not None and place < self._positional for place, _ in self._required)
        whole = data_decoder_for(self._tuple_of(self._positional))
        if fewest == self._positional or self._positional > _LENGTH:
            return whole
        counts = range(fewest, self._positional)
        decoders = {bytes([_ARRAY | count]): data_decoder_for(self._tuple_of(count)) for count in counts}
        decoders[bytes([_ARRAY | self._positional])] = whole
        self._by_head = decoders
        # A memoryview of bytes has their hash, and equals them.
        return lambda payload: decoders[payload[:1]](payload)  # type: ignore[index]  # as said

    def _is_for_data_decoder(self, payload: bytes | memoryview) -> bool:
        """Whether it decodes such a payload, or what is wrong stands behind its head."""
        if self._by_head is not None:
            return bytes(payload[:1]) in self._by_head
        return not _is_map(payload) and _count(payload) == self._positional

    def decode_after(
        self, error: Exception, payload: bytes | memoryview, incoming: Incoming
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """As :meth:`decode`, of what is data alone and was tried by :meth:`data_decoder`, whose function raised this.

        Raises:
            ArgumentError: they are not what the interface says.
            Exception: ``error``, where they are: a signal handler has raised it.
        """
        if not self._is_for_data_decoder(payload):
            # It has not looked at more than the head.
            return self.decode(payload, incoming)
        if says_all(error, payload):
            raise self._refusal(error) from error
        self.decode(payload, incoming)
        raise error

    def decode(self, payload: bytes | memoryview, incoming: Incoming) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of a CALL: by position, and by name.

        Raises:
            ArgumentError, StaleCapability: they are not what the interface says.
        """
        try:
            if _is_map(payload):
                by_position, by_name = self._decode_by_name(payload, incoming)
            else:
                by_position, by_name = self._decode_by_position(payload, incoming), {}
            incoming.check_used()
        except StaleCapability:
            raise
        except Exception as error:  # a __post_init__ of the user's may raise anything for what a peer sends
            raise self._refusal(error) from error
        if by_name or len(by_position) < self._positional:
            self._check_complete(len(by_position), by_name)
        return by_position, by_name

    def _refusal(self, error: Exception) -> ArgumentError:
        """What is said where they are not what the interface says."""
        words = _PLACE.sub(self._with_name, words_of_failure(error))
        return ArgumentError(f"{self._where}, arguments: {words}")

    def _with_name(self, match: re.Match[str]) -> str:
        """The place of an error, with the index replaced by the parameter's name."""
        place = int(match[2])
        return match[1] + self._parameters[place].name + match[3] if place < len(self._parameters) else ""

    def _decode_by_position(self, payload: bytes | memoryview, incoming: Incoming) -> Sequence[Any]:
        count = _count(payload)
        if count > self._positional:
            raise ArgumentError(f"{count} came by position, and the server knows {self._positional}: it may be older")
        decode = self._decoders.get(count)
        if decode is None:
            decode = self._decoders[count] = decoder_for(self._tuple_of(count))
        decoded: Sequence[Any] = decode(payload, incoming)
        return decoded

    def _decode_by_name(self, payload: bytes | memoryview, incoming: Incoming) -> tuple[Sequence[Any], dict[str, Any]]:
        known = len(self._places)
        if (count := _count(payload)) > known + _UNKNOWN_MAX:
            # Before millions of them are made objects.
            raise ArgumentError(f"{count} came by name, and the server knows {known}: it may be older")
        raw = _decode_map(payload)
        first = raw.pop(BY_POSITION, None)
        by_position = () if first is None else self._decode_by_position(memoryview(first), incoming)
        by_name: dict[str, Any] = {}
        for name, value in raw.items():
            place = self._places.get(name)
            if place is None:
                # Before repr(), which makes four characters of one.
                words = repr(shortened(name))
                raise ArgumentError(f"the server knows no parameter {words} that is given by name: it may be older")
            if place < len(by_position):
                raise ArgumentError(f"`{name}` came by position and by name")
            by_name[self._names.get(name, name)] = self._decode_named(name, place, value, incoming)
        return by_position, by_name

    def _decode_named(self, name: str, place: int, payload: Buffer, incoming: Incoming) -> Any:
        decode = self._named.get(name)
        if decode is None:
            decode = self._named[name] = decoder_for(self._annotations[place])
        try:
            return decode(payload, incoming)
        except StaleCapability:
            raise
        except Exception as error:  # as in decode()
            words = words_of_failure(error)
            placed = named(words, name)
            raise ArgumentError(placed if placed != words else f"{words} - at `{name}`") from error

    def _check_complete(self, count: int, by_name: dict[str, Any]) -> None:
        missing = [name for place, name in self._required if name not in by_name and (place is None or place >= count)]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            raise ArgumentError(f"{self._where}, arguments: {names} missing, for which the server has no default")
