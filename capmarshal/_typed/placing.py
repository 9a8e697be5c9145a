"""Descriptors and capabilities within other things: whether each stands where one is due, looked at by the sender.

In a payload each is an index, an int.  So ``(file, 0)`` for a ``tuple[int, Descriptor]`` is two ints, as ``(0, file)``
is, and the receiver cannot tell.  Here they are encoded as something else than an int, and decoded again as a stand-in
of the annotation that wants just that in their places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.inspect import AnyType, CustomType, DictType, RawType, Type

from capmarshal._capabilities.capability import Capability, Delegable
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._kernel.errors import name_of
from capmarshal._typed.lists import is_list
from capmarshal._typed.records import walk
from capmarshal._typed.stand_ins import StandIns

if TYPE_CHECKING:
    from collections.abc import Callable

_THING = msgspec.msgpack.Ext(0, b"")
_WORDS = "a file, socket or capability"


def _hook(thing: Any) -> msgspec.msgpack.Ext:
    if issubclass(type(thing), (Capability, Delegable)) or hasattr(thing, "fileno"):
        return _THING
    raise TypeError(f"`{name_of(type(thing))}` objects cannot be sent")


_encode = msgspec.msgpack.Encoder(enc_hook=_hook).encode


def check_for(annotation: Any) -> Callable[[Any], None]:
    """A function that refuses values in which something stands where something else is due.

    The function raises ``msgspec.ValidationError``, which names the place, and whatever msgspec raises for what cannot
    be sent.
    """
    if is_list(annotation):
        within = _checker(annotation)
        # The way to hand over many needs no look at each.
        return lambda value: None if type(value) is list and {*map(type, value)} <= {Descriptor} else within(value)
    return _checker(annotation)


def _checker(annotation: Any) -> Callable[[Any], None]:
    description = msgspec.inspect.type_info(annotation)
    if any(isinstance(node, DictType) and any(map(_is_thing, walk(node.key_type))) for node in walk(description)):
        # What stands for one has no hash: such a dict is for the receiver to look at.
        return lambda _value: None
    decode = msgspec.msgpack.Decoder(StandIns(_is_told, Any).of(description)).decode

    def check(value: Any) -> None:
        payload = _encode(value)
        try:
            decode(payload)
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(str(error).replace("`ext`", _WORDS)) from None

    return check


def _is_thing(node: Type) -> bool:
    return isinstance(node, CustomType)


def _is_told(node: Type) -> bool:
    """Whether there is something that a value of the type cannot be."""
    return not isinstance(node, (AnyType, RawType))
