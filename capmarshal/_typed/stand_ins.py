"""Stand-ins: types of the same shape as an annotation's, for a look at a payload before it is decoded as declared."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import functools
import uuid
from typing import TYPE_CHECKING, Any, Literal, Union

import msgspec
from msgspec.inspect import (
    AnyType,
    BoolType,
    ByteArrayType,
    BytesType,
    CustomType,
    DataclassType,
    DateTimeType,
    DateType,
    DecimalType,
    DictType,
    EnumType,
    ExtType,
    FloatType,
    FrozenSetType,
    IntType,
    ListType,
    LiteralType,
    MemoryViewType,
    Metadata,
    NamedTupleType,
    NoneType,
    RawType,
    SetType,
    StrType,
    StructType,
    TimeDeltaType,
    TimeType,
    TupleType,
    Type,
    TypedDictType,
    UnionType,
    UUIDType,
    VarTupleType,
)

from capmarshal._typed.records import Record, class_of, is_attrs

if TYPE_CHECKING:
    from collections.abc import Callable

# What may stand beside a record in a union, and is told from it by its kind.
_SCALARS: dict[type[Type], Any] = {
    NoneType: None,
    BoolType: bool,
    IntType: int,
    FloatType: float,
    StrType: str,
    BytesType: bytes,
    ByteArrayType: bytearray,
    MemoryViewType: memoryview,
    DateTimeType: dt.datetime,
    DateType: dt.date,
    TimeType: dt.time,
    TimeDeltaType: dt.timedelta,
    UUIDType: uuid.UUID,
    DecimalType: decimal.Decimal,
    ExtType: msgspec.msgpack.Ext,
    # For whoever encodes capabilities and descriptors as that.
    CustomType: msgspec.msgpack.Ext,
}


class StandIns:
    """Makes stand-ins, one for each record, so that a record may contain itself.

    Args:
        has_to_be_read: whether something in a type needs a look.
        unread: what stands for all that needs none.
    """

    def __init__(self, has_to_be_read: Callable[[Type], bool], unread: Any) -> None:
        self._has_to_be_read = has_to_be_read
        self._unread = unread
        self._made: dict[int, Any] = {}

    def of(self, node: Type) -> Any:
        """The stand-in for a type."""
        return self._built(node) if self._has_to_be_read(node) else self._unread

    def _built(self, node: Type) -> Any:
        """The same, where it has to be of the type's own kind."""
        if isinstance(node, Metadata):
            return self._built(node.type)
        if isinstance(node, UnionType):
            # Any beside a record takes the record as well.
            if any(isinstance(member, (AnyType, RawType)) for member in node.types):
                return self._unread
            return Union[tuple(self._built(member) for member in node.types)]  # noqa: UP007 - made of a list
        if isinstance(node, (ListType, SetType, FrozenSetType, VarTupleType)):
            return tuple[self.of(node.item_type), ...]  # type: ignore[misc]  # made at run time
        if isinstance(node, TupleType):
            return tuple[tuple(self.of(member) for member in node.item_types)]  # type: ignore[misc]  # made at run time
        if isinstance(node, DictType):
            # A key must have a hash, which what is unread has not.
            return dict[StandIns(self._has_to_be_read, Any).of(node.key_type), self.of(node.value_type)]  # type: ignore[misc]  # likewise
        if isinstance(node, (DataclassType, NamedTupleType, StructType, TypedDictType)):
            return self._record(node)
        if isinstance(node, EnumType):
            return node.cls
        if isinstance(node, LiteralType):
            return Literal[node.values]
        return _SCALARS[type(node)]

    def _record(self, node: Record) -> Any:
        made = self._made.get(id(node))
        if made is None:
            names = [field.encode_name for field in node.fields]
            if isinstance(node, DataclassType):
                names += _cached_properties(class_of(node))
            made = self._made[id(node)] = _empty(node, names)
            # Only now, since a field may be of the record's own type; msgspec reads them when a decoder is made.
            made.__annotations__ = {f"f{place}": self._unread for place in range(len(names))}
            made.__annotations__ |= {f"f{place}": self.of(field.type) for place, field in enumerate(node.fields)}
        return made


def _empty(node: Record, names: list[str]) -> Any:
    """A class with fields that are sent under ``names``, of which none is required, and none besides is allowed."""
    fields = [f"f{place}" for place in range(len(names))]
    tag, tag_field, array_like = None, None, isinstance(node, NamedTupleType)
    if isinstance(node, StructType):
        tag, tag_field, array_like = node.tag, node.tag_field, node.array_like
    if array_like and tag_field is None:
        # It may stand in a union beside a record that is none, where msgspec wants tags of two Structs.
        return collections.namedtuple(class_of(node).__name__, fields, defaults=[None] * len(fields))  # noqa: PYI024 - typed above
    return msgspec.defstruct(
        class_of(node).__name__,
        [(field, Any, None) for field in fields],
        rename=dict(zip(fields, names, strict=True)),
        tag=tag,
        tag_field=tag_field,
        array_like=array_like,
        forbid_unknown_fields=True,
        # By identity, so that it may be a key.
        eq=False,
    )


def _cached_properties(cls: type) -> list[str]:
    """What objects of an attrs class are sent with, though it is no field, and the receiver works out for itself."""
    if not is_attrs(cls):
        return []
    return sorted(
        {
            name
            for base in cls.__mro__
            for name, value in vars(base).items()
            if isinstance(value, functools.cached_property)
        }
    )
