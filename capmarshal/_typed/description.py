"""What an object's entrypoint says of it to whoever asks: which methods can be called, as data.

Types are JSON Schema (2020-12), of the values as JSON has them: bytes in base64, dates as text.  What is no data is
``{"x-capmarshal": KIND}``: a descriptor, by the name of its annotation, or a "capability", whose interface is the
title.  ``x-capmarshal-keys`` is the type of a dict's keys, where they are not text in an argument either.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct

KIND = "x-capmarshal"
KEYS = "x-capmarshal-keys"
CAPABILITY = "capability"


class ParameterDescription(Struct, frozen=True, omit_defaults=True):
    """One parameter of a method.

    Attributes:
        name: of it.
        schema: the type; of a stream, of each item.
        how: "position", "name" or "either" way: how an argument may be given for it.
        stream: it is an Iterator or an AsyncIterator.
        optional: it has a default.
        default: that, where it is data.
    """

    name: str
    schema: dict[str, Any]
    how: str = "either"
    stream: bool = False
    optional: bool = False
    default: Any = UNSET


class MethodDescription(Struct, frozen=True, omit_defaults=True):
    """One method.

    Attributes:
        name: of it.
        interface: that declares it.
        parameters: in their order.
        result: the type; of a stream, of each item.
        stream: the result is an Iterator or an AsyncIterator.
        raises: the errors that it declares.
        doc: its docstring, as written.
    """

    name: str
    interface: str
    parameters: tuple[ParameterDescription, ...]
    result: dict[str, Any]
    stream: bool = False
    raises: tuple[str, ...] = ()
    doc: str = ""


class InterfaceDescription(Struct, frozen=True, omit_defaults=True):
    """One interface, as far as its methods can be called.

    Attributes:
        name: of it.
        doc: its docstring, as written.
    """

    name: str
    doc: str = ""


class Description(Struct, frozen=True, omit_defaults=True):
    """An object.

    Attributes:
        interfaces: that it serves.
        methods: of these, in the order of their declaration.
        definitions: the types that the others refer to, as "#/$defs/NAME".
    """

    interfaces: tuple[InterfaceDescription, ...]
    methods: tuple[MethodDescription, ...]
    definitions: dict[str, dict[str, Any]] = {}
