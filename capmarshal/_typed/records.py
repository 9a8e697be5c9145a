"""Records among the types of an annotation, and which of them msgspec would not send as they are.

A record is what has named fields: a dataclass, an attrs class, a TypedDict, a NamedTuple, a Struct.  Its value is those
fields, and they travel.  Where msgspec sends fewer, or gives back others, the class is refused when the interface is
first used, since nobody would notice later.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec.inspect import DataclassType, Field, NamedTupleType, StructType, Type, TypedDictType

if TYPE_CHECKING:
    from collections.abc import Iterator

Record: TypeAlias = DataclassType | NamedTupleType | StructType | TypedDictType


def walk(description: Type) -> Iterator[Type]:
    """Every type in msgspec's description of one, that one included, each once."""
    seen: set[int] = set()
    todo: list[Any] = [description]
    while todo:
        node = todo.pop()
        if isinstance(node, (tuple, list)):
            todo += reversed(node)
        elif isinstance(node, Field):
            todo.append(node.type)
        elif isinstance(node, Type) and id(node) not in seen:
            seen.add(id(node))
            yield node
            todo += [getattr(node, name) for name in reversed(node.__struct_fields__)]


def class_of(record: Record) -> type:
    """The class of a record, without the arguments that make a generic one concrete."""
    origin: type = typing.get_origin(record.cls) or record.cls
    return origin


def field_with(wanted: Type, description: Type) -> str:
    """In which field of a record a type stands within another, for people, as ``Order.lines: ``; empty: in none."""
    # The innermost comes last.
    found = ""
    for record in walk(description):
        if isinstance(record, Record):
            for field in record.fields:
                if any(node is wanted for node in walk(field.type)):
                    found = f"{class_of(record).__qualname__}.{field.name}: "
    return found


def is_attrs(cls: type) -> bool:
    """Whether msgspec takes it for an attrs class."""
    return hasattr(cls, "__attrs_attrs__") and not hasattr(cls, "__dataclass_fields__")


def refuse_lossy(node: Type) -> None:
    """Refuses a record that would not arrive as it was sent.

    Raises:
        TypeError: it is one; names the field, and says what to do.
    """
    if isinstance(node, (DataclassType, StructType)):
        cls = class_of(node)
        if is_attrs(cls):
            _refuse_attrs(cls, {field.name for field in node.fields})
        _refuse_unset(cls, node)


def _refuse_attrs(cls: type, fields: set[str]) -> None:
    """Of an attrs class msgspec sends what its objects have, not what it declares, but for names with an underscore."""
    private = sorted(name for name in fields if name.startswith("_"))
    if private:
        raise TypeError(
            f"the field {private[0]} of the attrs class {cls.__qualname__} would not be sent, since its name begins "
            "with an underscore; take another name, or a dataclass"
        )
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in fields and not name.startswith("_"):
                raise TypeError(
                    f"{name} of the attrs class {cls.__qualname__} is no field, but would be sent with them; "
                    "make it a field, or, if it is a cached property, say slots=False"
                )


def _refuse_unset(cls: type, record: DataclassType | StructType) -> None:
    """A field that is UNSET is not sent, so it has to be UNSET where nothing arrives."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError:
        # Python 3.12 does not know the type parameters of a class whose annotations are strings; msgspec does.
        return
    for field in record.fields:
        unset_by_default = not field.required and field.default is field.default_factory
        if not unset_by_default and msgspec.UnsetType in typing.get_args(hints.get(field.name)):
            raise TypeError(
                f"the field {field.name} of {cls.__qualname__} may be UNSET, which is not sent; "
                "let UNSET be its default"
            )
