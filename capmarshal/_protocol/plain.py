"""Plain data about an error, as a peer says it: scalars, lists, and dicts with strings for keys.

It is decoded level by level.  All at once, a map may have any keys, tuples of ints among them, whose hashes anybody can
make collide: 200 KB of such keys keep an interpreter busy for four seconds, whatever the deadline is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

# Bytes of one value.
_MOST = 64 << 10
# Heads of MessagePack's arrays, maps and extensions.
_ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
_EXTENSIONS = frozenset((0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)))

_encode = msgspec.msgpack.Encoder().encode
_decode_array: Callable[[Any], list[msgspec.Raw]] = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_map: Callable[[Any], dict[str, msgspec.Raw]] = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_decode_scalar: Callable[[Any], Any] = msgspec.msgpack.Decoder().decode


def packed(value: Any) -> msgspec.Raw | None:
    """A value as it travels; None if it is not plain, or too long."""
    try:
        raw = msgspec.Raw(_encode(value))
        if len(memoryview(raw)) <= _MOST:
            unpacked(raw)
            return raw
    except Exception:  # noqa: BLE001 - whatever a class of the application's raises when it is asked for its fields
        return None
    return None


def unpacked(raw: msgspec.Raw) -> Any:
    """The value again.

    Raises:
        ValueError, RecursionError: it is none.
    """
    data = memoryview(raw)
    if len(data) > _MOST:
        raise ValueError("plain data of more bytes than are taken")
    return _unpacked(data)


def _unpacked(data: memoryview) -> Any:
    head = data[0] if data else 0
    if head in _ARRAYS:
        return [_unpacked(memoryview(item)) for item in _decode_array(data)]
    if head in _MAPS:
        return {key: _unpacked(memoryview(value)) for key, value in _decode_map(data).items()}
    if head in _EXTENSIONS:
        raise ValueError("an extension among plain data")
    return _decode_scalar(data)
