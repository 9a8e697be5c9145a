"""A description for people: as an interface is written."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._describe.schemas import name_in, shown, values_in
from capmarshal._kernel.errors import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._describe.schemas import Definitions
    from capmarshal._typed.description import Description, MethodDescription, ParameterDescription

_INDENT = "    "
# Characters of a default, as it is shown.
_DEFAULT = 60


def lines_of(described: Description) -> Iterator[str]:
    """The lines, none of which has anything that a terminal obeys."""
    definitions = described.definitions
    for place, interface in enumerate(described.interfaces):
        if place:
            yield ""
        yield printable(f"interface {interface.name}")
        yield from _doc(interface.doc)
        for method in described.methods:
            if method.interface == interface.name:
                yield ""
                yield from _method(method, definitions)
    for name, schema in definitions.items():
        yield from _definition(name, schema, definitions)


def signature(method: MethodDescription, definitions: Definitions) -> str:
    """A method as it is declared, but for what a terminal obeys."""
    taken: list[str] = []
    before = ""
    for each in method.parameters:
        if before == "position" and each.how != "position":
            taken.append("/")
        if each.how == "name" and before != "name":
            taken.append("*")
        taken.append(_parameter(each, definitions))
        before = each.how
    if before == "position":
        taken.append("/")
    result = _stream(shown(method.result, definitions), is_stream=method.stream)
    return printable(f"{method.name}({', '.join(taken)}) -> {result}")


def _stream(words: str, *, is_stream: bool) -> str:
    return f"Iterator[{words}]" if is_stream else words


def _parameter(parameter: ParameterDescription, definitions: Definitions) -> str:
    words = f"{parameter.name}: {_stream(shown(parameter.schema, definitions), is_stream=parameter.stream)}"
    return words + (_default(parameter.default, parameter.schema) if parameter.optional else "")


def _default(default: Any, schema: Any) -> str:
    if isinstance(default, str) and isinstance(schema, dict) and "contentEncoding" in schema:
        with contextlib.suppress(ValueError):
            default = base64.b64decode(default, validate=True)
    said = "..." if default is msgspec.UNSET else repr(default)
    return f" = {said if len(said) <= _DEFAULT else '...'}"


def _method(method: MethodDescription, definitions: Definitions) -> Iterator[str]:
    yield _INDENT + signature(method, definitions)
    for line in _doc(method.doc):
        yield _INDENT + line if line else ""
    if method.raises:
        yield 2 * _INDENT + printable(shortened(f"raises {', '.join(method.raises)}"))


def _doc(doc: str) -> Iterator[str]:
    # Imported when used: the rest of the command does without it.
    import inspect

    for line in inspect.cleandoc(doc).splitlines():
        yield _INDENT + printable(line) if line else ""


def _definition(name: str, schema: Any, definitions: Definitions) -> Iterator[str]:
    """A type that the others name: a record's fields, or what an enumeration is of."""
    title = name_in(schema) or name
    properties = schema.get("properties")
    yield ""
    if not isinstance(properties, dict):
        inner = {key: value for key, value in schema.items() if key != "title"}
        yield printable(f"{title} = {values_in(inner) or shown(inner, definitions)}")
        return
    yield printable(f"record {title}")
    yield from _doc(str(schema.get("description", "")))
    required = schema.get("required", [])
    for field, said in properties.items():
        optional = field not in required
        default = said.get("default", msgspec.UNSET) if isinstance(said, dict) else msgspec.UNSET
        yield printable(f"{_INDENT}{field}: {shown(said, definitions)}{_default(default, said) if optional else ''}")
