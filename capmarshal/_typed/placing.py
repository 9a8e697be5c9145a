"""Descriptors and capabilities within other things: whether each stands where one is due, looked at by the sender.

In a payload each is an index, an int.  So ``(file, 0)`` for a ``tuple[int, Descriptor]`` is two ints, as ``(0, file)``
is, and the receiver cannot tell.  Here they are encoded as something else than an int, and decoded again as a stand-in
of the annotation that wants just that in their places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.inspect import AnyType, CustomType, DictType, RawType, Type

from capmarshal._typed.codec import encode
from capmarshal._typed.records import walk
from capmarshal._typed.stand_ins import StandIns
from capmarshal._typed.table import Search

if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS = "a file, socket or capability"


def check_for(annotation: Any) -> Callable[[Any], int]:
    """A function that refuses values in which something stands where something else is due.

    The function returns how many lines of a table a value will be.  It raises ``msgspec.ValidationError``, which names
    the place, and whatever msgspec raises for what cannot be sent.
    """
    description = msgspec.inspect.type_info(annotation)
    # What stands for one has no hash: a dict with such keys is for the receiver to look at.
    keyed = any(isinstance(node, DictType) and any(map(_is_thing, walk(node.key_type))) for node in walk(description))
    decode = msgspec.msgpack.Decoder(StandIns(_is_told, Any).of(description)).decode

    def check(value: Any) -> int:
        search = Search()
        payload = encode(value, search)
        try:
            if not keyed:
                decode(payload)
        except msgspec.ValidationError as error:
            words = str(error).replace("`ext`", _WORDS).replace("`ext | null`", f"{_WORDS}, or None")
            raise msgspec.ValidationError(words) from None
        return len(search.found)

    return check


def _is_thing(node: Type) -> bool:
    return isinstance(node, CustomType)


def _is_told(node: Type) -> bool:
    """Whether there is something that a value of the type cannot be."""
    return not isinstance(node, (AnyType, RawType))
