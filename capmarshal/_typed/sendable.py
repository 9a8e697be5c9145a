"""Which types can be sent: what msgspec knows, what stands for a capability or a descriptor, and all made of these."""

from __future__ import annotations

import io
import os
import types
import typing
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec.inspect import (
    AnyType,
    ByteArrayType,
    CustomType,
    DataclassType,
    DictType,
    FrozenSetType,
    ListType,
    SetType,
    StructType,
    TupleType,
    Type,
    TypedDictType,
    UnionType,
    VarTupleType,
)

from capmarshal._capabilities.capability import Capability, Delegable, Proxy
from capmarshal._kernel.errors import name_of
from capmarshal._typed.marks import defined_by
from capmarshal._typed.records import class_of, field_with, refuse_lossy, walk
from capmarshal._typed.table import DESCRIPTOR_TYPES


def optional_in(annotation: Any) -> tuple[Any, bool]:
    """What an annotation says but for ``| None`` and what is annotated beside it, and whether None will do."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return optional_in(arguments[0])
    others = [argument for argument in arguments if argument is not types.NoneType]
    if origin in (typing.Union, types.UnionType) and len(others) == 1:
        return optional_in(others[0])[0], True
    return annotation, False


class Unsendable(Exception):  # never leaves the package
    """Why values of a type cannot be sent, in words."""


def is_data(annotation: Any) -> bool:
    """Whether values of a type are data alone: no capability and no descriptor can be in them.

    Raises:
        Unsendable: they can't be sent.
    """
    data = True
    try:
        described = msgspec.inspect.type_info(annotation)
        for node in walk(described):
            if isinstance(node, CustomType):
                data = False
                _refuse_foreign(node.cls, field_with(node, described))
            _refuse_any_or_else(node)
            _refuse_unhashable(node)
            refuse_lossy(node)
    except RecursionError as error:
        raise Unsendable("the annotation is nested too deeply") from error
    except Exception as error:  # classes have annotations too, which may be strings, and raise anything
        # What msgspec cannot do is no reason to write to its authors.
        words = str(error).partition(" If you need this feature")[0]
        if "custom type" in words:
            # msgspec's name for all that is no data.
            union = words.rpartition(" - type ")[2].split("`")[1].replace("_io.", "io.")
            words = (
                f"the union {union}: what is no data is alone, or beside None; take a parameter for each, `... | None`"
                ", or the Descriptor that files and sockets have in common"
            )
        if "ForwardRef" in words:
            words += "; a type that contains itself has to be a class, such as a dataclass"
        raise Unsendable(words or type(error).__name__) from error
    return data


def _refuse_foreign(cls: type, field: str) -> None:
    if issubclass(cls, Proxy):
        raise TypeError(f"{field}{name_of(cls)} is the class of a proxy; write the interface")
    defined = defined_by(cls) if issubclass(cls, Delegable) else []
    if defined:
        names = ", ".join(defined)
        raise TypeError(f"{field}{name_of(cls)} is a server's class, which defines {names}; write its interface")
    if cls is object:
        words = "object may be anything, also what cannot be sent; write typing.Any for data of every kind"
        raise TypeError(f"{field}{words}")
    if cls not in (Capability, *DESCRIPTOR_TYPES) and not issubclass(cls, Delegable):
        raise TypeError(
            f"{field}{name_of(cls)} is neither data, nor an Interface, nor one of Capability, Signal, Descriptor, "
            f"Dataspace, SharedBuffer, io.BufferedReader, io.BufferedWriter, socket.socket; {_instead_of(cls)}"
        )


def _instead_of(cls: type) -> str:
    """What to write in place of a class that cannot be sent."""
    if issubclass(cls, (io.IOBase, typing.IO)):
        return (
            "a file is an io.BufferedReader or an io.BufferedWriter, by what is done with it, and text is made of "
            "that: io.TextIOWrapper(file)"
        )
    if issubclass(cls, os.PathLike):
        return "send the open file, as io.BufferedReader, or a name, as str"
    if issubclass(cls, (Iterator, AsyncIterator)) or cls in (Iterable, AsyncIterable):
        return (
            "a stream is an argument or a result by itself, and not within another: Iterator[...], or "
            "AsyncIterator[...] where its items are awaited"
        )
    if issubclass(cls, Awaitable):
        return "a result that is awaited is written as what it gives, of a method that is declared with async def"
    if hasattr(cls, "__array_interface__"):
        return "send an array as Dataspace or SharedBuffer"
    return "send its contents as data, or make it an Interface"


def _refuse_any_or_else(node: Type) -> None:
    """Any is data of every kind: a capability beside it would not be looked for."""
    if isinstance(node, UnionType) and any(isinstance(member, AnyType) for member in node.types):
        custom = [member.cls for member in node.types if isinstance(member, CustomType)]
        if custom:
            raise TypeError(f"a union of Any and {name_of(custom[0])}; Any is data of every kind, and nothing else")


def _refuse_unhashable(node: Type) -> None:
    """A set of lists can be declared, but there is none."""
    if isinstance(node, (SetType, FrozenSetType)) and not _hashable(node.item_type):
        raise TypeError("a set of what has no hash; take a list, or make its class frozen")
    if isinstance(node, DictType) and not _hashable(node.key_type):
        raise TypeError("a dict whose keys have no hash; take a list of pairs, or make their class frozen")


def _hashable(node: Type) -> bool:
    """Whether every value of a type has a hash."""
    if isinstance(node, (UnionType, TupleType)):
        return all(map(_hashable, node.types if isinstance(node, UnionType) else node.item_types))
    if isinstance(node, VarTupleType):
        return _hashable(node.item_type)
    if isinstance(node, StructType):
        config: Any = getattr(class_of(node), "__struct_config__")  # noqa: B009 - no checker knows what is a Struct's
        return config.frozen or not config.eq
    if isinstance(node, DataclassType):
        return class_of(node).__hash__ is not None
    return not isinstance(node, (ListType, SetType, DictType, ByteArrayType, TypedDictType))
