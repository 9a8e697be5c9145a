"""Types by what a stranger says of them in JSON Schema: as Python knows them, and as people read them.

Nothing that is said is evaluated, and no text of it becomes part of a program: each word is looked up among those that
are known here.  What is not known is data of any kind, which the server looks at itself.
"""

from __future__ import annotations

import io
import socket
from functools import reduce
from operator import or_
from typing import Any, Literal, TypeAlias

import msgspec

from capmarshal._capabilities.capability import Capability
from capmarshal._capabilities.signal_capability import Signal
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.shared_buffer import SharedBuffer
from capmarshal._typed.description import CAPABILITY, KEYS, KIND
from capmarshal._typed.sendable import is_data

Schema: TypeAlias = "dict[str, Any]"
Definitions: TypeAlias = "dict[str, Schema]"

# What stands for no data.
KINDS: dict[str, type] = {
    "Dataspace": Dataspace,
    "Descriptor": Descriptor,
    "SharedBuffer": SharedBuffer,
    "Signal": Signal,
    CAPABILITY: Capability,
    "io.BufferedReader": io.BufferedReader,
    "io.BufferedWriter": io.BufferedWriter,
    "socket.socket": socket.socket,
}
_PLAIN: dict[str, Any] = {"integer": int, "number": float, "boolean": bool, "null": None}
# What people write for text of a format.
_FORMATS = {
    "date-time": "datetime",
    "decimal": "Decimal",
    "duration": "timedelta",
    "uuid": "UUID",
}
_REFERENCE = "#/$defs/"
# Values that are not shown.
_MORE = "... ({} more)"

# Types in one type, and how deep they stand in each other: what stands in more is Any.
_MOST, _DEEPEST = 1000, 32
# Characters of a type, and of one word in it, as they are shown; and of the values of one.
_SHOWN, _WORD, _VALUES = 300, 60, 1000


class CannotBeCalled(Exception):  # never leaves the package
    """Why what a server describes cannot be called from here, in words."""


def referred(schema: Any, definitions: Definitions) -> Schema:
    """What a schema says, or the definition that it refers to."""
    for _ in range(_DEEPEST):
        if not isinstance(schema, dict):
            return {}
        name = schema.get("$ref")
        if not isinstance(name, str):
            return schema
        schema = definitions.get(name.removeprefix(_REFERENCE))
    return {}


def is_text(schema: Schema, definitions: Definitions) -> bool:
    """Whether all values of a type are text."""
    said = referred(schema, definitions)
    if "contentEncoding" in said:
        return False
    values = said.get("enum")
    if said.get("type") == "string":
        return True
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def members_of(schema: Schema, definitions: Definitions) -> list[Schema]:
    """The types that a union is of; of what is none, that alone."""
    said = referred(schema, definitions)
    members = said.get("anyOf")
    return [referred(member, definitions) for member in members] if isinstance(members, list) else [said]


class Types:
    """Makes types of what one server says.

    Args:
        definitions: that its schemas refer to.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._left = _MOST
        self._open: list[str] = []

    def make(self, schema: Schema) -> tuple[Any, bool]:
        """The type that a schema stands for, and whether it is data alone.

        Raises:
            CannotBeCalled: it is not, and what it says besides is not known.
        """
        self._left = _MOST
        try:
            made = self._type(schema)
            return made, is_data(made)
        except CannotBeCalled:
            raise
        except Exception:  # noqa: BLE001 - a stranger's words: whatever is wrong with them is wrong with them
            if self._names_kind(schema):
                raise CannotBeCalled(f"{shown(schema, self._definitions)} is more than can be made here") from None
            return Any, True

    def _names_kind(self, schema: Schema) -> bool:
        """Whether there is anything but data in a type, as far as it is looked at."""
        todo: list[Any] = [schema]
        seen: set[str] = set()
        while todo:
            said = todo.pop()
            if isinstance(said, list):
                todo += said
            elif isinstance(said, dict):
                if KIND in said:
                    return True
                name = said.get("$ref")
                if isinstance(name, str) and name not in seen:
                    seen.add(name)
                    todo.append(self._definitions.get(name.removeprefix(_REFERENCE)))
                todo += said.values()
        return False

    def _type(self, schema: Any, tag: tuple[str, str] | None = None) -> Any:
        if not isinstance(schema, dict):
            return Any
        self._left -= 1
        if self._left < 0 or len(self._open) > _DEEPEST:
            raise ValueError("too much")
        name = schema.get("$ref")
        self._open.append(name if isinstance(name, str) else "")
        try:
            if not isinstance(name, str):
                return self._said(schema, tag)
            if self._open.count(name) > 1:
                # It contains itself.
                raise ValueError(name)
            return self._type(self._definitions.get(name.removeprefix(_REFERENCE), {}), tag)
        finally:
            self._open.pop()

    def _said(self, said: Schema, tag: tuple[str, str] | None) -> Any:
        if KIND in said:
            return KINDS[str(said[KIND])] if said[KIND] in KINDS else self._unknown(said[KIND])
        if isinstance(said.get("anyOf"), list):
            return self._union(said)
        if isinstance(said.get("enum"), list):
            return Literal[tuple(said["enum"])]
        match said.get("type"):
            case "string":
                return bytes if said.get("contentEncoding") == "base64" else str
            case "array":
                return self._array(said)
            case "object":
                return self._object(said, tag)
            case str() as plain:
                return _PLAIN.get(plain, Any)
        return Any

    def _unknown(self, kind: Any) -> Any:
        raise CannotBeCalled(f"{str(kind)[:_WORD]} is nothing that is known here: its server may be newer")

    def _union(self, said: Schema) -> Any:
        discriminator = said.get("discriminator")
        if not isinstance(discriminator, dict):
            return reduce(or_, [self._type(member) for member in said["anyOf"]])
        field, mapping = discriminator["propertyName"], discriminator["mapping"]
        tags = {reference: (field, tag) for tag, reference in mapping.items()}
        return reduce(or_, [self._type(member, tags.get(member.get("$ref"))) for member in said["anyOf"]])

    def _array(self, said: Schema) -> Any:
        items = said.get("prefixItems")
        if not isinstance(items, list):
            return list[self._type(said.get("items", {}))]  # type: ignore[misc]  # known at run time
        if said.get("minItems") != len(items):
            # Of a record whose last fields may be left out.
            raise ValueError("of no fixed length")
        return tuple[tuple(self._type(item) for item in items)]  # type: ignore[misc]  # likewise

    def _object(self, said: Schema, tag: tuple[str, str] | None) -> Any:
        properties = said.get("properties")
        if not isinstance(properties, dict):
            keys = self._type(said[KEYS]) if KEYS in said else str
            return dict[keys, self._type(said.get("additionalProperties", {}))]  # type: ignore[valid-type,misc]
        required = said.get("required", [])
        fields: list[Any] = []
        names = {}
        for name, field in properties.items():
            if tag is None or name != tag[0]:
                own = f"field{len(fields)}"
                names[own] = name
                # What is left out is not sent.
                default = () if name in required else (msgspec.UNSET,)
                fields.append((own, self._type(field), *default))
        return msgspec.defstruct(
            "Record",
            fields,
            kw_only=True,
            omit_defaults=True,
            forbid_unknown_fields=True,
            rename=names,
            tag_field=tag[0] if tag is not None else None,
            tag=tag[1] if tag is not None else None,
        )


def shown(schema: Any, definitions: Definitions) -> str:
    """A type as an annotation would have it, as far as people read that."""
    words = _shown(schema, definitions, 0)
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def name_in(said: Schema) -> str:
    """What a definition is called."""
    return str(said.get("title") or "")[:_WORD]


def values_in(said: Schema, most: int = _VALUES) -> str:
    """The values of a type that has a list of them, whole, and how many there are beside those; empty of another."""
    values = said.get("enum")
    if not isinstance(values, list):
        return ""
    words: list[str] = []
    for value in values:
        word = repr(value)
        most -= len(word) + len(" | ")
        if most < 0 or len(word) > _SHOWN:
            break
        words.append(word)
    if left := len(values) - len(words):
        words.append(_MORE.format(left))
    return " | ".join(words) or "Never"


def due(schema: Schema, definitions: Definitions) -> str:
    """A type as who has given something else is told of it: :func:`shown`, with its values where that is a name."""
    words, values = shown(schema, definitions), values_in(referred(schema, definitions), _SHOWN)
    return words if not values or words == values else f"{words} ({values})"


def _shown(schema: Any, definitions: Definitions, depth: int) -> str:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return "Any"
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return name_in(referred(schema, definitions)) or reference.removeprefix(_REFERENCE)[:_WORD]
    if KIND in schema:
        return name_in(schema) or str(schema[KIND]).replace(CAPABILITY, "Capability")[:_WORD]

    def within(inner: Any) -> str:
        return _shown(inner, definitions, depth + 1)

    if isinstance(members := schema.get("anyOf"), list):
        return " | ".join(dict.fromkeys(map(within, members[:_WORD]))) or "Never"
    if values := values_in(schema, _SHOWN - len(_MORE)):
        return values
    match schema.get("type"):
        case "array" if isinstance(items := schema.get("prefixItems"), list):
            return f"tuple[{', '.join(map(within, items[:_WORD]))}]"
        case "array":
            return f"{'set' if schema.get('uniqueItems') else 'list'}[{within(schema.get('items'))}]"
        case "object" if "properties" not in schema:
            keys = within(schema[KEYS]) if KEYS in schema else "str"
            return f"dict[{keys}, {within(schema.get('additionalProperties'))}]"
        case "string":
            if schema.get("contentEncoding") == "base64":
                return "bytes"
            said = str(schema.get("format", "str"))[:_WORD]
            return _FORMATS.get(said, said)
        case str() as plain:
            return {"integer": "int", "number": "float", "boolean": "bool", "null": "None"}.get(plain, plain[:_WORD])
    return name_in(schema) or "Any"
