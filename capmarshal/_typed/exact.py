"""Records arrive whole, or the call fails: a field that the annotation does not have is refused by name.

msgspec ignores fields that it does not know.  That is right for a format that may grow, and wrong for a call: what a
derived dataclass has more than the one that is declared, or a dict more than its TypedDict, would be cut without a
word.  A Struct can forbid it, other records cannot.

So each annotation with such a record in it has a *stand-in*: the same shape, with Structs that forbid unknown fields in
place of the records, and all else left unread (``Raw``).  A payload is decoded into the stand-in first, and that is
thrown away; what passes is decoded as declared.  What is missing, and what the values are, is for the second
decoding to check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.inspect import DataclassType, StructType, Type, TypedDictType

from capmarshal._typed.records import walk
from capmarshal._typed.stand_ins import StandIns

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer


def check_for(annotation: Any) -> Callable[[Buffer], object] | None:
    """A function that refuses payloads with fields for which ``annotation`` has no place.

    Returns:
        The function, which raises anything that msgspec raises; None where decoding as ``annotation`` refuses as much.
    """
    description = msgspec.inspect.type_info(annotation)
    if not _ignores_fields(description):
        return None
    return msgspec.msgpack.Decoder(StandIns(_ignores_fields, msgspec.Raw).of(description)).decode


def _ignores_fields(description: Type) -> bool:
    """Whether there is a record in it of which msgspec ignores unknown fields."""
    return any(
        isinstance(node, (DataclassType, TypedDictType))
        or (isinstance(node, StructType) and not node.forbid_unknown_fields)
        for node in walk(description)
    )
