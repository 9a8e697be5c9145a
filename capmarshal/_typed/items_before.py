"""Items of a stream that have come before one that is not what the interface says: these are right.

An error of the answer in which they came brings them, to whoever takes items; to nobody else, and not as a part of it.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._typed.codec import decoder_for
from capmarshal._typed.incoming import Incoming

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_BEFORE = "__capmarshal_before__"
_items = msgspec.msgpack.Decoder(tuple[list[msgspec.Raw], bool]).decode


def bring_items(failure: BaseException, batch: Any, payload: Buffer) -> None:
    """Has an error bring the items that are right of a payload that is not, up to the first that is not data.

    Args:
        failure: what is wrong with the payload.
        batch: the annotation of that.
        payload: it.
    """
    items, _ = typing.get_args(batch)
    (annotation,) = typing.get_args(items)
    decode, right = decoder_for(annotation), []
    try:
        for item in _items(payload)[0]:
            right.append(decode(item, Incoming([], DescriptorList())))  # noqa: PERF401 - what came before is kept
    except Exception:  # noqa: BLE001, S110 - this one is what the error is about
        pass
    if right:
        setattr(failure, _BEFORE, right)


def items_with(failure: BaseException) -> list[Any]:
    """The items that an error has brought, which it brings no more."""
    brought: list[Any] = vars(failure).pop(_BEFORE, [])
    return brought
